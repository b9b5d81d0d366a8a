"""Corpora: documents in a fixed order with a fingerprint. A large one is never held in memory, but read in a stream."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.cutting import cut
from windtunnel.data.documents import DOCUMENT_BYTES, SET_FIELD, Document, Fields
from windtunnel.data.sources import Documents, Source, parse_source, standard_library
from windtunnel.errors import InputError

__all__ = ["Corpus", "Document", "Survey", "read_corpus"]

FEWEST_DOCUMENTS = 10
HELD_BYTES = 1 << 25
MOST_SETS = 256
_DIGEST_BYTES = 16

Digests: TypeAlias = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Survey:
    """What one reading of a corpus tells: 42 bytes for each of its n documents, and no text.

    fingerprint: SHA-256 over the names, sets and texts, in order. texts, orders: the first 16 bytes of the SHA-256 of
    each text and of each name with its text, as two numbers that sort as the bytes do. codes: indices into `sets`,
    which are in the order of their names; None is the set of what has none.
    """

    fingerprint: str
    sizes: npt.NDArray[np.int64]  # n, UTF-8 bytes
    texts: Digests  # n 2
    orders: Digests  # n 2
    codes: npt.NDArray[np.uint16]  # n
    sets: tuple[str | None, ...]


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, which can be read any number of times. `source` is one line for people.

    alphabet: the characters that all are made of, where each is to be a token (pictures); None for text. known: its
    survey, where it was made already.
    """

    name: str
    source: str
    documents: Iterable[Document]
    alphabet: str | None = None
    known: Survey | None = field(default=None, repr=False, compare=False)

    @cached_property
    def survey(self) -> Survey:
        """Sizes and hashes of all documents, from reading them once."""
        return self.known or _survey(self.documents)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return int(self.survey.sizes.sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names, sets and texts, in order."""
        return self.survey.fingerprint


def read_corpus(
    paths: Sequence[Path | str] | Path | str | None = None, text_field: str = "text", set_field: str = SET_FIELD
) -> Corpus:
    """Read text files, folders, JSON lines, Parquet or datasets; without paths, "stdlib", Python's own source text.

    `NAME=PATH` makes all that is in the path one set of that name; otherwise a record's `set_field` names its set.
    "digits" alone, where no such file exists, is scikit-learn's pictures (`windtunnel.data.pictures`).

    Fewer than ten documents cannot be divided well, so they are cut at line ends into pieces of 8 KB (less where the
    corpus is small). Over 32 MB of text are left where they are and read in a stream. Raises InputError for what is
    missing, empty, binary, undecodable or without its text field; in a large corpus perhaps only while it is read.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths or [])
    if [str(path) for path in given] == ["digits"] and not Path("digits").exists():
        from windtunnel.data.pictures import digits

        return digits()
    fields = Fields(text_field, set_field)
    sources: list[Source] = [parse_source(path, fields) for path in given] or [standard_library()]
    parts: list[tuple[Source, Path]] = []
    skipped = 0
    for source in sources:
        files, binary = source.files()
        parts += [(source, file) for file in files]
        skipped += binary
    notes = [f"{skipped} binary files skipped"] if skipped else []
    return _assemble(sources, Documents(parts), notes)


def _assemble(sources: list[Source], stream: Documents, notes: list[str]) -> Corpus:
    name = "+".join(dict.fromkeys(source.set or source.name for source in sources))
    shown = ", ".join(source.shown for source in sources)
    documents, several = _held(stream)
    if documents is not None:
        if not any(not document.text.isspace() for document in documents):
            raise InputError(f"data {shown} is empty: it holds no text")
        if not several:
            documents, size = _cut_all(documents)
            notes = [*notes, f"cut at line ends into pieces of at most {size} bytes"]
        return Corpus(name, "; ".join([f"{shown}: {len(documents)} documents", *notes]), documents)
    if not several:
        notes = [*notes, f"cut at line ends into pieces of at most {DOCUMENT_BYTES} bytes"]
    large = stream if several else _Cut(stream)
    survey = _survey(large)
    return Corpus(name, "; ".join([f"{shown}: {len(survey.sizes)} documents", *notes]), large, known=survey)


def _held(stream: Documents) -> tuple[list[Document] | None, bool]:
    """The documents if they are few enough to be held in memory, and whether there are at least ten of them."""
    held: list[Document] | None = []
    size = count = 0
    for document in stream:
        count += 1
        if held is not None:
            held.append(document)
            size += len(document.text)
        if size > HELD_BYTES:
            held = None
            if count >= FEWEST_DOCUMENTS:
                break
    return held, count >= FEWEST_DOCUMENTS


class _Cut:
    """A few large documents in pieces of 8 KB."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = documents

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            yield from _pieces(document, DOCUMENT_BYTES)


def _cut_all(documents: list[Document]) -> tuple[list[Document], int]:
    total = sum(len(document.text.encode("utf-8")) for document in documents)
    size = max(16, min(DOCUMENT_BYTES, total // (2 * FEWEST_DOCUMENTS)))
    return [piece for document in documents for piece in _pieces(document, size)], size


def _pieces(document: Document, size: int) -> Iterator[Document]:
    for number, piece in enumerate(cut(document.text, size)):
        yield Document(f"{document.name}#{number}", piece, document.set)


def _survey(documents: Iterable[Document]) -> Survey:
    fingerprint = hashlib.sha256()
    sizes, codes, texts, orders = array("q"), array("H"), bytearray(), bytearray()
    known: dict[str | None, int] = {}
    for document in documents:
        name = document.name.encode("utf-8", "surrogateescape")
        text = document.text.encode("utf-8", "surrogateescape")
        for part in (name, (document.set or "").encode("utf-8", "surrogateescape"), text):
            fingerprint.update(len(part).to_bytes(8, "little") + part)
        sizes.append(len(text))
        texts += hashlib.sha256(text).digest()[:_DIGEST_BYTES]
        orders += hashlib.sha256(name + b"\0" + text).digest()[:_DIGEST_BYTES]
        codes.append(known.setdefault(document.set, len(known)))
        if len(known) > MOST_SETS:
            raise InputError(f"{document.name}: more than {MOST_SETS} sets; name another field of sets")
    sets = sorted(known, key=lambda name: (name is None, name or ""))
    rank = np.array([sets.index(name) for name in known] or [0], dtype=np.uint16)
    return Survey(
        fingerprint=fingerprint.hexdigest(),
        sizes=np.array(sizes, dtype=np.int64),
        texts=_digests(texts),
        orders=_digests(orders),
        codes=rank[np.array(codes, dtype=np.uint16)],
        sets=tuple(sets),
    )


def _digests(data: bytearray) -> Digests:
    return np.frombuffer(bytes(data), dtype=">u8").astype(np.uint64).reshape(-1, 2)
