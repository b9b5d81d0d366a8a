"""Files in, documents out: text, JSON lines (plain, .gz, .zst) and Parquet, read strictly.

Whatever cannot be text is refused with one line that names the file and the place in it.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from windtunnel.errors import InputError

LINE_SUFFIXES = (".jsonl", ".ndjson")
COMPRESSED_SUFFIXES = (".gz", ".zst")
SET_FIELD = "meta.pile_set_name"
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its name, and the subset of the corpus that it belongs to, where the corpus says so."""

    name: str
    text: str
    set: str | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a record hold the text and the subset's name; dots reach into nested records."""

    text: str = "text"
    set: str = SET_FIELD


def read_file(path: Path, name: str, fields: Fields) -> Iterator[Document]:
    """The documents of one file: a line each of JSON lines, a row each of Parquet, otherwise the whole text."""
    kind = _inner_suffix(path)
    try:
        if kind in LINE_SUFFIXES:
            yield from _read_lines(path, name, fields)
        elif kind == ".parquet":
            yield from _read_parquet(path, name, fields)
        else:
            yield Document(name, decode_text(_read_bytes(path), path))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def is_text_file(path: Path) -> bool:
    """Whether the file holds one document (plain text) rather than records."""
    return _inner_suffix(path) not in (*LINE_SUFFIXES, ".parquet")


def is_binary(path: Path) -> bool:
    """Whether a text file's bytes are no text at all; what is mis-encoded or damaged is not called binary."""
    try:
        return is_text_file(path) and _looks_binary(_read_bytes(path))
    except (OSError, EOFError, zlib.error):
        return False


def decode_text(data: bytes, path: Path) -> str:
    """UTF-8 text of `data`, unchanged (no newline or byte-order-mark treatment), or an InputError."""
    if _looks_binary(data):
        raise InputError(f"{path} is binary, not text ({data.count(0)} of its {len(data)} bytes are NUL)")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise InputError(f"{path} is not UTF-8 text: {place} ({error.reason}); convert it to UTF-8") from error


def _looks_binary(data: bytes) -> bool:
    nul = data.count(0)
    if nul == 0:
        return False
    if nul * 100 >= len(data):
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _inner_suffix(path: Path) -> str:
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED_SUFFIXES else name.suffix


def _open(path: Path) -> BinaryIO | gzip.GzipFile | io.BufferedReader:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")
    if suffix == ".zst":
        import zstandard

        stream = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
        return io.BufferedReader(_ZstandardErrors(stream, path))
    return path.open("rb")


class _ZstandardErrors(io.RawIOBase):
    """A Zstandard stream whose library errors are input errors that name the file."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path = stream, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zstandard

        try:
            return int(self._stream.readinto(buffer))
        except zstandard.ZstdError as error:
            raise InputError(f"{self._path} is not a whole Zstandard file: {error}") from error

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read_bytes(path: Path) -> bytes:
    with _open(path) as stream:
        return stream.read()


def _read_lines(path: Path, name: str, fields: Fields) -> Iterator[Document]:
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                place = f"{path}:{number}"
                yield _document(_parse_line(line, place), f"{name}:{number}", place, fields)


def _parse_line(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not UTF-8 text: byte {error.start} of the line ({error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{place} must be a JSON object with a text field, not {type(record).__name__}")
    return record


def _read_parquet(path: Path, name: str, fields: Fields) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            present = file.schema_arrow.names
            columns = [column for field in (fields.text, fields.set) if (column := _column(field, present))]
            if not columns or _column(fields.text, present) is None:
                raise InputError(_missing_field(str(path), fields.text, present))
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(columns))):
                for record in batch.to_pylist():
                    row += 1
                    yield _document(record, f"{name}:{row}", f"{path} row {row}", fields)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error


def _column(field: str, present: list[str]) -> str | None:
    top = field.split(".")[0]
    return field if field in present else top if top in present else None


def _document(record: dict[str, Any], name: str, place: str, fields: Fields) -> Document:
    text = _lookup(record, fields.text)
    if text is _MISSING:
        raise InputError(_missing_field(place, fields.text, _field_names(record)))
    if not isinstance(text, str):
        raise InputError(f"{place}: field '{fields.text}' must be text, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: field '{fields.text}' has a lone surrogate at character {error.start}") from error
    subset = _lookup(record, fields.set)
    return Document(name, text, subset if isinstance(subset, str) else None)


def _lookup(record: Any, field: str) -> Any:
    if isinstance(record, dict) and field in record:
        return record[field]
    head, _, rest = field.partition(".")
    if rest and isinstance(record, dict) and isinstance(record.get(head), dict):
        return _lookup(record[head], rest)
    return _MISSING


def _field_names(record: dict[str, Any]) -> list[str]:
    nested = [f"{key}.{inner}" for key, value in record.items() if isinstance(value, dict) for inner in value]
    return [key for key, value in record.items() if not isinstance(value, dict)] + nested


def _missing_field(place: str, field: str, present: list[str]) -> str:
    shown = ", ".join(present[:20]) or "none"
    return f"{place}: there is no text field '{field}'; the fields there are: {shown}"
