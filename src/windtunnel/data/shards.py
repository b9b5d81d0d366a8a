"""Token shards: what training reads, memory-mapped from a cache whose folders are named by their content.

A folder is built under a temporary name and renamed when all of it is on the disk, so that a second process, a kill or
a full disk never leaves a part of one. Every file's SHA-256 is kept in `meta.json` and verified when it is opened.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.corpus import Corpus, Division, Document, split
from windtunnel.data.files import as_one_line, file_hash, synchronise
from windtunnel.data.tokenizers import ByteTokenizer, Tokenizer, choose_vocabulary, load_tokenizer, train_sentencepiece
from windtunnel.errors import InputError

FORMAT = 1
HELDOUT_BYTES_PER_TOKEN = 5
_META_FILE = "meta.json"
_TOKENIZER_FOLDER = "tokenizer"
_BATCH_BYTES = 1 << 22
_CHECKED_BYTES = 1 << 26
_STALE_SECONDS = 24 * 3600

TokenizerChoice: TypeAlias = Tokenizer | str | int | Path | None
Progress: TypeAlias = Callable[[str, float], None]


@dataclass(frozen=True)
class Split:
    """One token stream: each document's tokens, preceded by `end_of_text`.

    `offsets[i]` is where document i's end_of_text stands, `offsets[n]` the length of the stream; `bytes[i]` is its
    UTF-8 length.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]  # [offsets[n]] uint16 or uint32, memory-mapped
    offsets: npt.NDArray[np.int64]  # n + 1
    bytes: npt.NDArray[np.int64]  # n
    names: list[str]
    sets: list[str | None]
    end_of_text: int

    def document(self, index: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Document `index` with its leading end_of_text."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Dataset:
    """Training and held-out tokens with their tokenizer. `record` holds the hashes and figures for `run.json`."""

    folder: Path
    train: Split
    heldout: Split
    record: dict[str, Any]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that was saved with the tokens."""
        return load_tokenizer(self.folder / _TOKENIZER_FOLDER)


def default_cache() -> Path:
    """WINDTUNNEL_CACHE if set, otherwise the platform's folder for caches."""
    named = os.environ.get("WINDTUNNEL_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "windtunnel" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "windtunnel"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windtunnel"


def prepare(
    corpus: Corpus,
    tokenizer: TokenizerChoice = None,
    context: int = 128,
    heldout_tokens: int = 65_536,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The corpus as token shards, built once and then opened from the cache.

    `tokenizer` is None (chosen from the corpus's size), "bytes", a vocabulary size to train SentencePiece for, a path
    that `load_tokenizer` reads, or a Tokenizer. Held out are about `heldout_tokens` tokens at five bytes each, at most
    a tenth of the corpus. Raises InputError for a corpus too small for `context`, a vocabulary that it cannot fill, a
    tokenizer that changes its text, and a damaged shard; WorkError where the disk is full.
    """
    chosen = _choose(tokenizer, corpus.bytes)
    root = cache or default_cache()
    folder = root / _key(corpus, chosen, heldout_tokens)
    if not folder.exists():
        _build(corpus, chosen, heldout_tokens, folder, progress or (lambda stage, share: None))
    dataset = open_dataset(folder)
    stream = int(dataset.train.tokens.size)
    if stream < 2 * context:
        raise InputError(
            f"{corpus.name} gives {stream} training tokens; context {context} needs at least {2 * context}: "
            "name more data or a shorter context"
        )
    return dataset


def open_dataset(folder: Path | str, verify: bool = True) -> Dataset:
    """Open shards. Sizes are always checked, SHA-256 unless `verify` is False (a worker of a checked study)."""
    folder = Path(folder)
    meta = _read_meta(folder)
    for name, file in meta["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(_damaged(path, folder, "it is missing"))
        if path.stat().st_size != file["bytes"]:
            raise InputError(_damaged(path, folder, f"{path.stat().st_size} bytes instead of {file['bytes']}"))
        if verify and file_hash(path) != file["sha256"]:
            raise InputError(_damaged(path, folder, "its SHA-256 is not the recorded one"))
    record = meta["record"]
    train, heldout = (_open_split(folder, name, record["dtype"], meta["end_of_text"]) for name in ("train", "heldout"))
    return Dataset(folder, train, heldout, record)


def _choose(tokenizer: TokenizerChoice, corpus_bytes: int) -> Tokenizer | int | None:
    """A tokenizer, a vocabulary to train, or None for a vocabulary that the corpus's size suggests."""
    if isinstance(tokenizer, Tokenizer | int):
        return tokenizer
    if tokenizer is None:
        return None if choose_vocabulary(corpus_bytes) else ByteTokenizer()
    if tokenizer == "bytes":
        return ByteTokenizer()
    return load_tokenizer(tokenizer)


def _key(corpus: Corpus, chosen: Tokenizer | int | None, heldout_tokens: int) -> str:
    tokens = chosen.fingerprint if isinstance(chosen, Tokenizer) else [chosen, version("sentencepiece")]
    content = json.dumps([FORMAT, corpus.fingerprint, tokens, heldout_tokens])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _make_tokenizer(chosen: Tokenizer | int | None, corpus_bytes: int, texts: list[str]) -> Tokenizer:
    if isinstance(chosen, Tokenizer):
        return chosen
    if chosen is not None:
        return train_sentencepiece(texts, chosen)
    try:
        return train_sentencepiece(texts, choose_vocabulary(corpus_bytes) or 0)
    except InputError:  # large but of little variety: nobody asked for the size, so bytes do
        return ByteTokenizer()


def _build(
    corpus: Corpus, chosen: Tokenizer | int | None, heldout_tokens: int, folder: Path, progress: Progress
) -> None:
    progress("divide", 0.0)
    division = split(corpus, heldout_tokens * HELDOUT_BYTES_PER_TOKEN)
    progress("tokenizer", 0.0)
    tokenizer = _make_tokenizer(chosen, corpus.bytes, [document.text for document in division.train])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise as_one_line(error, folder.parent) from error
    try:
        _write_dataset(temporary, corpus, division, tokenizer, progress)
        temporary.chmod(0o755)
        _move_into_place(temporary, folder)
    except OSError as error:
        raise as_one_line(error, folder.parent) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, folder: Path) -> None:
    """Rename; where another process was first, its folder holds the same content and stays."""
    try:
        os.rename(temporary, folder)
    except OSError:
        if not (folder / _META_FILE).exists():
            raise
    synchronise(folder.parent)


def _remove_stale(folder: Path) -> None:
    """Remove what a killed build of the same folder left more than a day ago."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _write_dataset(folder: Path, corpus: Corpus, division: Division, tokenizer: Tokenizer, progress: Progress) -> None:
    tokenizer.save(folder / _TOKENIZER_FOLDER)
    dtype = "uint16" if tokenizer.vocab <= 1 << 16 else "uint32"
    total = sum(len(document.text) for document in corpus.documents)
    done = 0
    counts = {}
    for name, documents in (("heldout", division.heldout), ("train", division.train)):
        counts[name] = 0
        with _Writer(folder, name, dtype) as writer:
            for batch in _batches(documents):
                counts[name] += writer.add(batch, _encode(batch, tokenizer, done < _CHECKED_BYTES), tokenizer)
                done += sum(len(document.text) for document in batch)
                progress("encode", done / total)
    record = _record(corpus, division, tokenizer, counts) | {"dtype": dtype, "id": folder.name.split(".")[1]}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    hashes = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in files
    }
    _write_meta(folder, {"files": hashes, "end_of_text": tokenizer.end_of_text, "record": record})
    synchronise(folder / _TOKENIZER_FOLDER)
    synchronise(folder)


def _batches(documents: Sequence[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(batch: list[Document], tokenizer: Tokenizer, check_text: bool) -> list[npt.NDArray[np.int64]]:
    """Encode and check that nothing was lost: byte counts for every document, the text itself where asked."""
    encoded = tokenizer.encode_documents([document.text for document in batch])
    for document, ids in zip(batch, encoded, strict=True):
        data = document.text.encode("utf-8")
        same = int(tokenizer.token_bytes[ids].sum()) == len(data)
        if not same or (check_text and tokenizer.decode_bytes(ids) != data):
            raise InputError(_lossy(document, data, tokenizer.decode_bytes(ids), tokenizer))
        if (ids == tokenizer.end_of_text).any():
            raise InputError(f"tokenizer {tokenizer.label} turns text of {document.name} into its end-of-text token")
    return encoded


def _lossy(document: Document, data: bytes, back: bytes, tokenizer: Tokenizer) -> str:
    place = next((i for i, (a, b) in enumerate(zip(data, back, strict=False)) if a != b), min(len(data), len(back)))
    before, after = (side[place : place + 12].decode("utf-8", "replace") for side in (data, back))
    return (
        f"tokenizer {tokenizer.label} is not lossless: {document.name} at byte {place}, {before!r}, comes back as "
        f"{after!r}, so bits per byte cannot be computed; name a lossless tokenizer, a vocabulary size or 'bytes'"
    )


class _Writer:
    """Appends encoded documents to one split's files; on leaving, they are on the disk."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._offsets, self._bytes = [0], [0]
        self._names: list[tuple[str, str | None]] = []

    def __enter__(self) -> "_Writer":
        self._stream = (self._folder / f"{self._name}-tokens.bin").open("wb")
        return self

    def add(self, batch: list[Document], encoded: list[npt.NDArray[np.int64]], tokenizer: Tokenizer) -> int:
        """Write a batch and return how many tokens the documents have, end_of_text included."""
        first = self._offsets[-1]
        start = np.array([tokenizer.end_of_text], dtype=np.int64)
        for document, ids in zip(batch, encoded, strict=True):
            self._stream.write(np.concatenate([start, ids]).astype(f"<{np.dtype(self._dtype).str[1:]}").tobytes())
            self._offsets.append(self._offsets[-1] + 1 + len(ids))
            self._bytes.append(int(tokenizer.token_bytes[ids].sum()))
            self._names.append((document.name, document.set))
        return self._offsets[-1] - first

    def __exit__(self, *exception: object) -> None:
        self._finish(self._stream)
        with (self._folder / f"{self._name}-documents.npy").open("wb") as stream:
            np.save(stream, np.array([self._offsets, self._bytes], dtype="<i8"), allow_pickle=False)
            self._finish(stream)
        with (self._folder / f"{self._name}-names.json").open("w", encoding="utf-8", errors="surrogateescape") as names:
            json.dump(self._names, names)
            self._finish(names)

    @staticmethod
    def _finish(stream: Any) -> None:
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()


def _open_split(folder: Path, name: str, dtype: str, end_of_text: int) -> Split:
    documents = np.load(folder / f"{name}-documents.npy", allow_pickle=False)
    named = json.loads((folder / f"{name}-names.json").read_text(encoding="utf-8"))
    tokens = np.memmap(folder / f"{name}-tokens.bin", dtype=f"<{np.dtype(dtype).str[1:]}", mode="r")
    names, sets = [entry[0] for entry in named], [entry[1] for entry in named]
    return Split(tokens, documents[0], documents[1, 1:], names, sets, end_of_text)


def _record(corpus: Corpus, division: Division, tokenizer: Tokenizer, counts: dict[str, int]) -> dict[str, Any]:
    tokens = sum(counts.values()) - len(division.train) - len(division.heldout)
    held = sum(len(document.text.encode("utf-8")) for document in (*division.train, *division.heldout))
    return {
        "name": corpus.name,
        "source": corpus.source,
        "fingerprint": corpus.fingerprint,
        "bytes": corpus.bytes,
        "documents": len(division.train),
        "heldout_documents": len(division.heldout),
        "duplicates_dropped": division.duplicates_dropped,
        "near_duplicates_dropped": division.near_duplicates_dropped,
        "train_tokens": counts["train"],
        "heldout_tokens": counts["heldout"],
        "overlap_13gram": division.overlap.grams,
        "overlap_13gram_documents": division.overlap.documents,
        "tokenizer": tokenizer.label,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab": tokenizer.vocab,
        "bytes_per_token": held / max(tokens, 1),
    }


def _write_meta(folder: Path, content: dict[str, Any]) -> None:
    body = json.dumps(content, sort_keys=True)
    meta = {"format": FORMAT, "sha256": hashlib.sha256(body.encode()).hexdigest(), "content": content}
    with (folder / _META_FILE).open("w", encoding="utf-8") as stream:
        json.dump(meta, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / _META_FILE
    try:
        meta = json.loads(path.read_bytes())
        content: dict[str, Any] = meta["content"]
        body = json.dumps(content, sort_keys=True)
        whole = meta["format"] == FORMAT and meta["sha256"] == hashlib.sha256(body.encode()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(_damaged(path, folder, "it is missing or unreadable")) from error
    if not whole:
        raise InputError(_damaged(path, folder, "its content is not what was written"))
    return content


def _damaged(path: Path, folder: Path, why: str) -> str:
    return f"shard {path} is damaged ({why}); delete the folder {folder} and it is built again"
