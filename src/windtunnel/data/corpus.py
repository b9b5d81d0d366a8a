"""Corpora: documents in a fixed order with a fingerprint, and their division into training and held-out text.

Without paths the corpus is the source text of the standard library of the Python that runs, one document a file. It
changes with the Python version, so its fingerprint is kept with every result.
"""

import hashlib
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from windtunnel.data.documents import SET_FIELD, Document, Fields, is_binary, read_file
from windtunnel.data.overlap import Overlap, measure_overlap
from windtunnel.errors import InputError

__all__ = ["Corpus", "Division", "Document", "cut", "read_corpus", "split"]

DOCUMENT_BYTES = 8192
FEWEST_DOCUMENTS = 10
LARGEST_HELDOUT_SHARE = 0.1
FEWEST_HELDOUT_DOCUMENTS = 16
LARGEST_SHARED = 0.5
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_BUILD_PREFIXES = ("config-", "_sysconfigdata")  # written by the build: they name its machine


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order. `source` is one line for people that says where they came from.

    alphabet: the characters that all are made of, where each is to be a token (pictures); None for text.
    """

    name: str
    source: str
    documents: list[Document]
    alphabet: str | None = None

    @cached_property
    def bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return sum(len(document.text.encode("utf-8")) for document in self.documents)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, subsets and texts, in order."""
        digest = hashlib.sha256()
        for document in self.documents:
            for part in (document.name, document.set or "", document.text):
                data = part.encode("utf-8", "surrogateescape")
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Division:
    """Training and held-out documents, disjoint by document, and what is known about their independence."""

    train: list[Document]
    heldout: list[Document]
    duplicates_dropped: int
    near_duplicates_dropped: int
    overlap: Overlap


def read_corpus(paths: Sequence[Path | str] | Path | str | None = None, text_field: str = "text") -> Corpus:
    """Read text files, folders, JSON lines or Parquet; without paths, the standard library's source.

    "digits" alone, where no such file exists, is scikit-learn's pictures (`windtunnel.data.pictures`).

    Fewer than ten documents cannot be divided well, so they are cut at line ends into pieces of 8 KB (less where the
    corpus is small). Raises InputError for what is missing, empty, binary, undecodable or without its text field.
    """
    if not paths:
        return _standard_library()
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if files == [Path("digits")] and not files[0].exists():
        from windtunnel.data.pictures import digits

        return digits()
    documents: list[Document] = []
    skipped = 0
    for path in files:
        read, binary = _read_path(path, Fields(text_field, SET_FIELD))
        documents += read
        skipped += binary
    shown = ", ".join(str(path) for path in files)
    documents = [document for document in documents if document.text]
    if not any(not document.text.isspace() for document in documents):
        raise InputError(f"data {shown} is empty: it holds no text")
    notes = [f"{skipped} binary files skipped"] if skipped else []
    if len(documents) < FEWEST_DOCUMENTS:
        documents, size = _cut_all(documents)
        notes.append(f"cut at line ends into pieces of at most {size} bytes")
    name = "+".join(path.name or str(path) for path in files)
    return Corpus(name, "; ".join([f"{shown}: {len(documents)} documents", *notes]), documents)


def split(corpus: Corpus, heldout_bytes: int) -> Division:
    """Drop exact duplicates, then hold out documents in the order of a hash of name and text.

    Documents are taken until `heldout_bytes` are held out, never more than a tenth of the corpus. Long ones, over a
    sixteenth of the request, are passed over while shorter ones suffice: a score over few documents is a poor sample.
    The choice depends on neither tokenizer nor seed. Held-out documents stay in the order of their hashes, so that
    the first so many are a sample too. One that shares more than half of its runs of 13 words with training is left
    out of both (unless most are such), for it would measure memory.
    """
    first: dict[str, Document] = {}
    for document in corpus.documents:
        first.setdefault(document.text, document)
    documents = list(first.values())
    if len(documents) < 2:
        raise InputError(f"{corpus.name} holds one distinct document; holding one out needs at least two")
    chosen = _hold_out(documents, heldout_bytes, int(LARGEST_HELDOUT_SHARE * corpus.bytes))
    held = set(chosen)
    train = [document for index, document in enumerate(documents) if index not in held]
    heldout = [documents[index] for index in chosen]
    overlap = measure_overlap((document.text for document in train), (document.text for document in heldout))
    new = [i for i in range(len(heldout)) if overlap.shared[i] <= LARGEST_SHARED * overlap.total[i]]
    kept = new if 2 * len(new) >= len(heldout) else list(range(len(heldout)))
    return Division(
        train=train,
        heldout=[heldout[i] for i in kept],
        duplicates_dropped=len(corpus.documents) - len(documents),
        near_duplicates_dropped=len(heldout) - len(kept),
        overlap=overlap.only(kept),
    )


def _hold_out(documents: list[Document], wanted: int, largest: int) -> list[int]:
    """Which documents to hold out, in the order of their hashes; the smallest one where none fits."""
    wanted = min(wanted, largest)
    sizes = [len(document.text.encode("utf-8")) for document in documents]
    order = sorted(range(len(documents)), key=lambda index: _order(documents[index]))
    chosen: set[int] = set()
    total = 0
    for limit in (wanted // FEWEST_HELDOUT_DOCUMENTS, largest):
        for index in order:
            if total < wanted and index not in chosen and sizes[index] <= min(limit, largest - total):
                chosen.add(index)
                total += sizes[index]
    return [index for index in order if index in chosen] or [min(order, key=lambda index: sizes[index])]


def cut(text: str, size: int) -> Iterator[str]:
    """Cut a text at line ends into pieces of at most `size` bytes; a longer line is cut between characters."""
    data = text.encode("utf-8")
    start = 0
    while start < len(data):
        end = min(start + size, len(data))
        if end < len(data):
            newline = data.rfind(b"\n", start, end)
            end = newline + 1 if newline >= 0 else _character_start(data, start, end)
        yield data[start:end].decode("utf-8")
        start = end


def _character_start(data: bytes, start: int, end: int) -> int:
    """The last place at or before `end` where a character starts (after it, where none starts in between)."""
    place = end
    while place > start and data[place] & 0xC0 == 0x80:
        place -= 1
    if place > start:
        return place
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return end


def _cut_all(documents: list[Document]) -> tuple[list[Document], int]:
    total = sum(len(document.text.encode("utf-8")) for document in documents)
    size = max(16, min(DOCUMENT_BYTES, total // (2 * FEWEST_DOCUMENTS)))
    pieces = [
        Document(f"{document.name}#{number}", piece, document.set)
        for document in documents
        for number, piece in enumerate(cut(document.text, size))
    ]
    return pieces, size


def _order(document: Document) -> bytes:
    name = document.name.encode("utf-8", "surrogateescape")
    return hashlib.sha256(name + b"\0" + document.text.encode("utf-8")).digest()


def _read_path(path: Path, fields: Fields) -> tuple[list[Document], int]:
    """The documents under a path and, for a folder, how many binary files were skipped."""
    if not path.exists():
        raise InputError(f"data {path} does not exist")
    if not path.is_dir():
        return list(read_file(path, path.name, fields)), 0
    try:
        visible = list(_visible_files(path))
    except OSError as error:
        raise InputError(f"data {error.filename or path} cannot be read: {error.strerror or error}") from error
    files = [file for file in visible if not is_binary(file)]
    skipped = len(visible) - len(files)
    if not files:
        raise InputError(f"data {path} holds no text files" + (f": its {skipped} files are binary" if skipped else ""))
    documents: list[Document] = []
    for file in files:
        documents += read_file(file, file.relative_to(path.parent).as_posix(), fields)
    return documents, skipped


def _visible_files(folder: Path) -> Iterator[Path]:
    """The files under a folder in a fixed order; hidden ones and linked folders are left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _visible_files(path)
        elif path.is_file():
            yield path


def _standard_library() -> Corpus:
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in _source_files(root):
        documents += _source_file(path, path.relative_to(root).as_posix())
    if not documents:
        raise InputError(f"this Python has no standard library source in {root}; name a text with --data")
    version = platform.python_version()
    source = f"source text of the standard library of Python {version}: {len(documents)} files"
    return Corpus(f"python-{version}-stdlib", source, documents)


def _source_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name in _LEFT_OUT or path.name.startswith(_BUILD_PREFIXES):
            continue
        if path.is_dir():
            yield from _source_files(path)
        elif path.suffix == ".py":
            yield path


def _source_file(path: Path, name: str) -> list[Document]:
    """One document, or none for an empty file and for the few that are kept in another encoding."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, OSError):
        return []
    return [Document(name, text)] if text else []
