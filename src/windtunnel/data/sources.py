"""What `--data` names: files, folders, datasets and Python's own source, each with a name of its own if given one."""

import platform
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windtunnel.data import hub
from windtunnel.data.documents import Document, Fields, is_binary, is_saved_dataset, read_file, read_saved_dataset
from windtunnel.errors import InputError

STANDARD_LIBRARY = "stdlib"
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_BUILD_PREFIXES = ("config-", "_sysconfigdata")  # written by the build: they name its machine


@dataclass(frozen=True)
class Source:
    """A file or folder. name: what the names of its documents begin with; set: the one that all of them belong to."""

    path: Path
    name: str
    shown: str
    fields: Fields
    set: str | None = None

    def files(self) -> tuple[list[Path], int]:
        """The files in it in a fixed order, and how many were left out for being binary; a saved dataset is one."""
        path = self.path
        if not path.exists():
            raise InputError(f"data {path} does not exist")
        if not path.is_dir() or is_saved_dataset(path):
            return [path], 0
        try:
            visible = list(_visible_files(path))
        except OSError as error:
            raise InputError(f"data {error.filename or path} cannot be read: {error.strerror or error}") from error
        files = [file for file in visible if not is_binary(file)]
        skipped = len(visible) - len(files)
        if not files:
            reason = f": its {skipped} files are binary" if skipped else ""
            raise InputError(f"data {path} holds no text files{reason}")
        return files, skipped

    def read(self, file: Path) -> Iterator[Document]:
        """The documents of one of its files."""
        if file.is_dir():
            return read_saved_dataset(file, self.name, self.fields)
        inside = file != self.path
        name = file.relative_to(self.path.parent).as_posix() if inside else self.name
        return read_file(file, name, self.fields)


class StandardLibrary(Source):
    """The source text of the standard library of the Python that runs, one document a file.

    It changes with the Python version, so its fingerprint is kept with every result.
    """

    def files(self) -> tuple[list[Path], int]:
        """Its modules, without tests and what the build wrote."""
        found = list(_modules(self.path))
        if not found:
            raise InputError(f"this Python has no standard library source in {self.path}; name a text with --data")
        return found, 0

    def read(self, file: Path) -> Iterator[Document]:
        """One document, or none for an empty file and for the few that are kept in another encoding."""
        try:
            text = file.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, OSError):
            return
        if text:
            yield Document(file.relative_to(self.path).as_posix(), text)


def parse_source(given: Path | str, fields: Fields) -> Source:
    """`PATH`, `hf:DATASET` or `stdlib`, each also as `NAME=...`; a path that exists as it stands has no name."""
    text, label = str(given), None
    if "=" in text and not hub.is_hub(text) and not Path(text).exists():
        label, _, text = text.partition("=")
        if not label or not text:
            raise InputError(f"data {given}: expected NAME=PATH, such as wiki=texts/wiki.jsonl")
    if hub.is_hub(text):
        return Source(hub.fetch(text, fields), text, str(given), Fields(), label)
    path = Path(text)
    if text == STANDARD_LIBRARY and not path.exists():
        return standard_library(label)
    return Source(path, path.name or text, str(given), fields, label)


def standard_library(label: str | None = None) -> StandardLibrary:
    """Python's own source; label: the set that all of it belongs to."""
    version = platform.python_version()
    shown = f"source text of the standard library of Python {version}"
    return StandardLibrary(Path(sysconfig.get_path("stdlib")), f"python-{version}-stdlib", shown, Fields(), label)


class Documents:
    """The documents of some files, read anew each time they are asked for, so that no more than one is in memory."""

    def __init__(self, parts: Sequence[tuple[Source, Path]]) -> None:
        self._parts = list(parts)

    def __iter__(self) -> Iterator[Document]:
        for source, file in self._parts:
            for document in source.read(file):
                if document.text:
                    yield document if source.set is None else replace(document, set=source.set)


def _visible_files(folder: Path) -> Iterator[Path]:
    """The files under a folder in a fixed order; hidden ones and linked folders are left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _visible_files(path)
        elif path.is_file():
            yield path


def _modules(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name in _LEFT_OUT or path.name.startswith(_BUILD_PREFIXES):
            continue
        if path.is_dir():
            yield from _modules(path)
        elif path.suffix == ".py":
            yield path
