"""What `--data` names: files, folders and datasets, each with a name of its own if it is given one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windtunnel.data import hub
from windtunnel.data.documents import Document, Fields, is_binary, is_saved_dataset, read_file, read_saved_dataset
from windtunnel.errors import InputError


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


def parse_source(given: Path | str, fields: Fields) -> Source:
    """`PATH`, `NAME=PATH`, `hf:DATASET` or `NAME=hf:DATASET`; a path that exists as it stands has no name."""
    text, label = str(given), None
    if "=" in text and not hub.is_hub(text) and not Path(text).exists():
        label, _, text = text.partition("=")
        if not label or not text:
            raise InputError(f"data {given}: expected NAME=PATH, such as wiki=texts/wiki.jsonl")
    if hub.is_hub(text):
        return Source(hub.fetch(text, fields), text, str(given), Fields(), label)
    path = Path(text)
    return Source(path, path.name or text, str(given), fields, label)


class Documents:
    """The documents of some files, read anew each time they are asked for, so that no more than one is in memory."""

    def __init__(self, parts: Sequence[tuple[Source, Path]]) -> None:
        self._parts = list(parts)

    def __iter__(self) -> Iterator[Document]:
        for source, file in self._parts:
            for document in _read(source, file):
                if document.text:
                    yield document if source.set is None else replace(document, set=source.set)


def _read(source: Source, file: Path) -> Iterator[Document]:
    if file.is_dir():
        return read_saved_dataset(file, source.name, source.fields)
    inside = file != source.path
    name = file.relative_to(source.path.parent).as_posix() if inside else source.name
    return read_file(file, name, source.fields)


def _visible_files(folder: Path) -> Iterator[Path]:
    """The files under a folder in a fixed order; hidden ones and linked folders are left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _visible_files(path)
        elif path.is_file():
            yield path
