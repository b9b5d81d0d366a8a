"""Files in, documents out: text, JSON lines (plain, .gz, .zst), Parquet and saved datasets, read strictly in a stream.

Whatever cannot be text is refused with one line that names the file and the place in it. A text file is one document;
one over 32 MB is cut at line ends, so that no file has to fit into memory.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.data.compressed import DamagedError, inner_suffix, open_stream
from windtunnel.data.cutting import pieces
from windtunnel.errors import InputError

LINE_SUFFIXES = (".jsonl", ".ndjson")
SET_FIELD = "meta.pile_set_name"
DOCUMENT_BYTES = 8192
LARGEST_TEXT = 1 << 25
_ROWS = 256
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
    kind = inner_suffix(path)
    try:
        if kind in LINE_SUFFIXES:
            yield from _read_lines(path, name, fields)
        elif kind == ".parquet":
            yield from _read_parquet(path, name, fields)
        else:
            yield from _read_text(path, name)
    except DamagedError as error:
        raise InputError(f"{path} is {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder is what `save_to_disk` of Hugging Face's `datasets` wrote."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def read_saved_dataset(folder: Path, name: str, fields: Fields) -> Iterator[Document]:
    """The rows of a saved dataset, memory-mapped; of one with several splits, the training split."""
    import pyarrow

    if (folder / "dataset_dict.json").is_file():
        splits = _read_record(folder / "dataset_dict.json").get("splits", [])
        if "train" not in splits:
            raise InputError(f"{folder} has no split 'train'; name the folder of one of {', '.join(map(str, splits))}")
        folder = folder / "train"
    try:
        files = [folder / str(file["filename"]) for file in _read_record(folder / "state.json")["_data_files"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'state.json'} does not name the data's files") from error
    row = 0
    for file in files:
        try:
            with pyarrow.memory_map(str(file)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
                columns = _columns(stream.schema.names, file, fields)
                for batch in stream:
                    for record in _records(batch.select(columns)):
                        row += 1
                        yield to_document(record, f"{name}:{row}", f"{file} row {row}", fields)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file} is not a readable Arrow file: {error}") from error


def is_text_file(path: Path) -> bool:
    """Whether the file holds one document (plain text) rather than records."""
    return inner_suffix(path) not in (*LINE_SUFFIXES, ".parquet")


def is_binary(path: Path) -> bool:
    """Whether a text file's bytes are no text at all; what is mis-encoded or damaged is not called binary."""
    try:
        if not is_text_file(path):
            return False
        with open_stream(path) as stream:
            return _looks_binary(stream.read(LARGEST_TEXT))
    except (OSError, DamagedError):
        return False


def decode_text(data: bytes, path: Path, offset: int = 0) -> str:
    """UTF-8 text of `data`, unchanged (no newline or byte-order-mark treatment), or an InputError.

    offset: where in the file the data begins, for the message.
    """
    if _looks_binary(data):
        raise InputError(f"{path} is binary, not text ({data.count(0)} of its {len(data)} bytes are NUL)")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at offset {offset + error.start}"
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


def _read_text(path: Path, name: str) -> Iterator[Document]:
    with open_stream(path) as stream:
        head = stream.read(LARGEST_TEXT + 1)
        if len(head) <= LARGEST_TEXT:
            yield Document(name, decode_text(head, path))
            return
        if _looks_binary(head[:LARGEST_TEXT]):
            decode_text(head, path)
        place = 0
        for number, piece in enumerate(pieces(stream, DOCUMENT_BYTES, head)):
            yield Document(f"{name}#{number}", decode_text(piece, path, place))
            place += len(piece)


def _read_lines(path: Path, name: str, fields: Fields) -> Iterator[Document]:
    number = 0
    with open_stream(path) as stream:
        while True:
            number += 1
            try:
                line = stream.readline()
            except DamagedError as error:
                raise InputError(f"{path}:{number} cannot be read: {error}") from error
            if not line:
                return
            if line.strip():
                place = f"{path}:{number}"
                yield to_document(_parse_line(line, place), f"{name}:{number}", place, fields)


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
            columns = _columns(file.schema_arrow.names, path, fields)
            row = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                for record in _records(batch):
                    row += 1
                    yield to_document(record, f"{name}:{row}", f"{path} row {row}", fields)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error


def _records(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow batch, a few at a time: as Python's objects they take several times the memory."""
    for start in range(0, batch.num_rows, _ROWS):
        yield from batch.slice(start, _ROWS).to_pylist()


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} must be a JSON object, not {type(record).__name__}")
    return record


def _columns(present: list[str], path: Path, fields: Fields) -> list[str]:
    if _column(fields.text, present) is None:
        raise InputError(_missing_field(str(path), fields.text, present))
    return list(dict.fromkeys(column for field in (fields.text, fields.set) if (column := _column(field, present))))


def _column(field: str, present: list[str]) -> str | None:
    top = field.split(".")[0]
    return field if field in present else top if top in present else None


def to_document(record: dict[str, Any], name: str, place: str, fields: Fields) -> Document:
    """The document of a record; `place` is where it stands, for errors."""
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
