"""The files of one split, written in a stream and read by memory-mapping: a corpus of any size takes little memory.

Training documents of a corpus with several sets lie set by set, in the order of the sets' names, so that each set is a
stream of its own; with one set they lie in the corpus's order.
"""

import json
import os
import shutil
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.documents import Document
from windtunnel.data.tokenizers import Tokenizer

UNNAMED = "other"
TOKENS, DOCUMENTS, NAMES = "-tokens.bin", "-documents.npy", "-names.json"
_COPIED_BYTES = 1 << 20


class Counted(NamedTuple):
    """Documents, tokens (an end_of_text for each document included) and UTF-8 bytes."""

    documents: int
    tokens: int
    bytes: int


Counts: TypeAlias = dict[str, Counted]


class Names(Sequence[Any]):
    """A column of the documents' names, read when the first is asked for: training never asks."""

    def __init__(self, path: Path, column: int) -> None:
        self._path, self._column = path, column

    @cached_property
    def _entries(self) -> list[Any]:
        return [entry[self._column] for entry in json.loads(self._path.read_text(encoding="utf-8"))]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        return self._entries[index]


@dataclass(frozen=True)
class Split:
    """One token stream: each document's tokens, preceded by `end_of_text`.

    `offsets[i]` is where document i's end_of_text stands, `offsets[n]` the length of the stream; `bytes[i]` is its
    UTF-8 length. `parts` maps the names of sets to their documents, from the first to the one after the last; it is
    empty where all documents are of one set.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]  # [offsets[n]] uint16 or uint32, memory-mapped
    offsets: npt.NDArray[np.int64]  # n + 1
    bytes: npt.NDArray[np.int64]  # n
    names: Sequence[str]
    sets: Sequence[str | None]
    end_of_text: int
    parts: tuple[tuple[str, tuple[int, int]], ...] = ()

    def document(self, index: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Document `index` with its leading end_of_text."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def part(self, name: str) -> "Split":
        """The documents of one set."""
        first, last = dict(self.parts)[name]
        offsets = self.offsets[first : last + 1]
        tokens = self.tokens[offsets[0] : offsets[-1]]
        names, sets = self.names[first:last], self.sets[first:last]
        return Split(tokens, offsets - offsets[0], self.bytes[first:last], names, sets, self.end_of_text)


class Shard:
    """Writes one stream of encoded documents, or one set of a split that `joined` puts together."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self.path, self._type = folder / name, f"<{np.dtype(dtype).str[1:]}"
        self._offsets, self._bytes = array("q", [0]), array("q", [0])
        self._tokens: BinaryIO = _beside(self.path, TOKENS).open("wb")
        self._names: BinaryIO = _beside(self.path, NAMES).open("wb")

    @property
    def counted(self) -> Counted:
        """What was written so far."""
        return Counted(len(self._offsets) - 1, self._offsets[-1], sum(self._bytes))

    def add(self, document: Document, ids: npt.NDArray[np.int64], tokenizer: Tokenizer) -> None:
        """Append a document with its tokens."""
        start = np.array([tokenizer.begin_of_text], dtype=np.int64)
        self._tokens.write(np.concatenate([start, ids]).astype(self._type).tobytes())
        self._names.write(b", " if len(self._offsets) > 1 else b"")
        self._names.write(json.dumps([document.name, document.set]).encode())
        self._offsets.append(self._offsets[-1] + 1 + len(ids))
        self._bytes.append(int(tokenizer.token_bytes[ids].sum()))

    def take_over(self, other: "Shard") -> None:
        """Append all of another stream, whose files are then gone."""
        other.close()
        if len(self._offsets) > 1 and len(other._offsets) > 1:
            self._names.write(b", ")
        for target, kind in ((self._tokens, TOKENS), (self._names, NAMES)):
            with _beside(other.path, kind).open("rb") as source:
                shutil.copyfileobj(source, target, _COPIED_BYTES)
            _beside(other.path, kind).unlink()
        shift = self._offsets[-1]
        self._offsets.extend(shift + offset for offset in other._offsets[1:])
        self._bytes.extend(other._bytes[1:])

    def finish(self, path: Path) -> None:
        """Make the files those of the split `path`, whole and on the disk."""
        _settle(self._tokens)
        _settle(self._names)
        _beside(self.path, TOKENS).replace(_beside(path, TOKENS))
        with _beside(path, DOCUMENTS).open("wb") as stream:
            np.save(stream, np.array([self._offsets, self._bytes], dtype="<i8"), allow_pickle=False)
            _settle(stream)
        _enclose(_beside(self.path, NAMES), _beside(path, NAMES))

    def close(self) -> None:
        """Close the files as they are."""
        self._tokens.close()
        self._names.close()


class Writer:
    """Writes a split set by set; on leaving, its files are whole and on the disk."""

    def __init__(self, folder: Path, name: str, dtype: str, sets: Sequence[str | None] | None) -> None:
        self._path = folder / name
        numbered = [None] if sets is None else sets
        self._shards = {each: Shard(folder, f"{name}.{i}", dtype) for i, each in enumerate(numbered)}
        self._apart = sets is not None
        self.counts: Counts = {}

    def __enter__(self) -> "Writer":
        return self

    def add(self, document: Document, ids: npt.NDArray[np.int64], tokenizer: Tokenizer) -> None:
        """Append a document with its tokens to its set."""
        self._shards[document.set if self._apart else None].add(document, ids, tokenizer)

    def __exit__(self, *exception: object) -> None:
        try:
            if exception[0] is None:
                self.counts = {name or UNNAMED: shard.counted for name, shard in self._shards.items()}
                first, *others = self._shards.values()
                for shard in others:
                    first.take_over(shard)
                first.finish(self._path)
        finally:
            for shard in self._shards.values():
                shard.close()


def open_split(folder: Path, name: str, dtype: str, end_of_text: int, parts: Any) -> Split:
    """A split's files, memory-mapped. parts: (set, first document, the one after the last), where there are several."""
    documents = np.load(folder / f"{name}{DOCUMENTS}", mmap_mode="r", allow_pickle=False)
    tokens = np.memmap(folder / f"{name}{TOKENS}", dtype=f"<{np.dtype(dtype).str[1:]}", mode="r")
    names, sets = (Names(folder / f"{name}{NAMES}", column) for column in (0, 1))
    bounds = tuple((str(part), (int(first), int(last))) for part, first, last in parts)
    return Split(tokens, documents[0], documents[1, 1:], names, sets, end_of_text, bounds)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(path.name + kind)


def _enclose(entries: Path, path: Path) -> None:
    """The names as one JSON list."""
    with entries.open("rb") as source, path.open("wb") as stream:
        stream.write(b"[")
        shutil.copyfileobj(source, stream, _COPIED_BYTES)
        stream.write(b"]")
        _settle(stream)
    entries.unlink()


def _settle(stream: BinaryIO) -> None:
    try:
        stream.flush()
        os.fsync(stream.fileno())
    finally:
        stream.close()
