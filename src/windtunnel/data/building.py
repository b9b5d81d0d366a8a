"""Building token shards: encode, check that nothing was lost, write, and rename into the cache as a whole."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.corpus import Corpus, Document
from windtunnel.data.division import Division, Texts, split
from windtunnel.data.files import as_one_line, file_hash, synchronise
from windtunnel.data.shard import UNNAMED, Counts, Writer
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


def _make_tokenizer(chosen: Tokenizer | int | None, corpus_bytes: int, texts: Iterable[str]) -> Tokenizer:
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
    if not isinstance(chosen, Tokenizer):
        progress("tokenizer", 0.0)
    tokenizer = _make_tokenizer(chosen, corpus.bytes, Texts(division.train))
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
    done, total = 0, max(corpus.bytes, 1)
    counts: dict[str, Counts] = {}
    several = len(corpus.survey.sets) > 1
    for name, documents in (("heldout", division.heldout), ("train", division.train)):
        apart = corpus.survey.sets if several and name == "train" else None
        with Writer(folder, name, dtype, apart) as writer:
            for batch in _batches(documents):
                for document, ids in zip(batch, _encode(batch, tokenizer, done < _CHECKED_BYTES), strict=True):
                    writer.add(document, ids, tokenizer)
                    done += int(tokenizer.token_bytes[ids].sum())
                progress("encode", done / total)
        counts[name] = writer.counts
    record = _record(corpus, division, tokenizer, counts) | {"dtype": dtype, "id": folder.name.split(".")[1]}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    hashes = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in files
    }
    parts = _parts(counts["train"]) if several else []
    _write_meta(folder, {"files": hashes, "end_of_text": tokenizer.begin_of_text, "record": record, "parts": parts})
    synchronise(folder / TOKENIZER_FOLDER)
    synchronise(folder)


def _parts(counts: Counts) -> list[tuple[str, int, int]]:
    """Which documents are of which set: its name, the first, and the one after the last."""
    ends = [0, *accumulate(each.documents for each in counts.values())]
    return list(zip(counts, ends, ends[1:], strict=False))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
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
        expected = tokenizer.prefix + data if data else data
        same = int(tokenizer.token_bytes[ids].sum()) == len(expected)
        if not same or (check_text and tokenizer.decode_bytes(ids) != expected):
            raise InputError(_lossy(document, expected, tokenizer.decode_bytes(ids), tokenizer))
        if (ids == tokenizer.begin_of_text).any():
            raise InputError(
                f"tokenizer {tokenizer.label} turns text of {document.name} into the token that begins one"
            )
    return encoded


def _lossy(document: Document, data: bytes, back: bytes, tokenizer: Tokenizer) -> str:
    place = next((i for i, (a, b) in enumerate(zip(data, back, strict=False)) if a != b), min(len(data), len(back)))
    before, after = (side[place : place + 12].decode("utf-8", "replace") for side in (data, back))
    return (
        f"tokenizer {tokenizer.label} is not lossless: {document.name} at byte {place}, {before!r}, comes back as "
        f"{after!r}, so bits per byte cannot be computed; name a lossless tokenizer, a vocabulary size or 'bytes'"
    )


def _record(corpus: Corpus, division: Division, tokenizer: Tokenizer, counts: dict[str, Counts]) -> dict[str, Any]:
    totals = {name: [sum(part) for part in zip(*each.values(), strict=True)] for name, each in counts.items()}
    documents, tokens, size = (sum(part) for part in zip(*totals.values(), strict=True))
    record = {
        "name": corpus.name,
        "source": corpus.source,
        "fingerprint": corpus.fingerprint,
        "bytes": corpus.bytes,
        "documents": totals["train"][0],
        "heldout_documents": totals["heldout"][0],
        "duplicates_dropped": division.duplicates_dropped,
        "near_duplicates_dropped": division.near_duplicates_dropped,
        "train_tokens": totals["train"][1],
        "heldout_tokens": totals["heldout"][1],
        "overlap_13gram": division.overlap.grams,
        "overlap_13gram_documents": division.overlap.documents,
        "tokenizer": tokenizer.label,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab": tokenizer.vocab,
        "bytes_per_token": size / max(tokens - documents, 1),
    }
    if len(corpus.survey.sets) > 1:
        held = Counter(document.set or UNNAMED for document in division.heldout)
        record["sets"] = {
            name: {
                "documents": made.documents,
                "heldout_documents": held[name],
                "train_tokens": made.tokens,
                "bytes": made.bytes,
            }
            for name, made in counts["train"].items()
        }
    return record


def _write_meta(folder: Path, content: dict[str, Any]) -> None:
    body = json.dumps(content, sort_keys=True)
    meta = {"format": FORMAT, "sha256": hashlib.sha256(body.encode()).hexdigest(), "content": content}
    with (folder / META_FILE).open("w", encoding="utf-8") as stream:
        json.dump(meta, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
