"""Building token shards: encode, check that nothing was lost, write, and rename into the cache as a whole."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.corpus import Corpus, Division, Document, split
from windtunnel.data.files import as_one_line, file_hash, synchronise
from windtunnel.data.tokenizers import ByteTokenizer, Tokenizer, choose_vocabulary, train_sentencepiece
from windtunnel.errors import InputError

FORMAT = 1
HELDOUT_BYTES_PER_TOKEN = 5
META_FILE = "meta.json"
TOKENIZER_FOLDER = "tokenizer"
_BATCH_BYTES = 1 << 22
_CHECKED_BYTES = 1 << 26
_STALE_SECONDS = 24 * 3600

Progress: TypeAlias = Callable[[str, float], None]


def _make_tokenizer(chosen: Tokenizer | int | None, corpus_bytes: int, texts: list[str]) -> Tokenizer:
    if isinstance(chosen, Tokenizer):
        return chosen
    if chosen is not None:
        return train_sentencepiece(texts, chosen)
    try:
        return train_sentencepiece(texts, choose_vocabulary(corpus_bytes) or 0)
    except InputError:  # large but of little variety: nobody asked for the size, so bytes do
        return ByteTokenizer()


def build(
    corpus: Corpus, chosen: Tokenizer | int | None, heldout_tokens: int, folder: Path, progress: Progress
) -> None:
    """Build the shards of `corpus` as `folder`; another process may be doing the same, and the first one counts."""
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
        if not (folder / META_FILE).exists():
            raise
    synchronise(folder.parent)


def _remove_stale(folder: Path) -> None:
    """Remove what a killed build of the same folder left more than a day ago."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _write_dataset(folder: Path, corpus: Corpus, division: Division, tokenizer: Tokenizer, progress: Progress) -> None:
    tokenizer.save(folder / TOKENIZER_FOLDER)
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
    synchronise(folder / TOKENIZER_FOLDER)
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
        try:
            stream.flush()
            os.fsync(stream.fileno())
        finally:
            stream.close()


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
    with (folder / META_FILE).open("w", encoding="utf-8") as stream:
        json.dump(meta, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
