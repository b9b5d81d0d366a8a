"""Datasets of the Hugging Face hub by name, streamed once into the cache and read from there ever after.

Only data files are read: the library `datasets`, from version 4 on, runs no code that a dataset brings along.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from windtunnel.data.documents import Document, Fields, to_document
from windtunnel.data.files import as_one_line, default_cache
from windtunnel.errors import InputError
from windtunnel.values import parse_count

PREFIX = "hf:"
_KNOWN = ("config", "split", "documents")


def is_hub(text: str) -> bool:
    """Whether the text names a dataset of the hub: `hf:NAME`."""
    return text.startswith(PREFIX)


def fetch(text: str, fields: Fields) -> Path:
    """The local copy of `hf:NAME?config=C&split=S&documents=N` as JSON lines, streamed now where there is none.

    The split is `train` unless named; `documents` takes only the first so many. Raises InputError where the library is
    missing, the dataset cannot be read, or its records have no text.
    """
    name, wanted = _parse(text)
    key = hashlib.sha256(json.dumps([text, fields.text, fields.set]).encode()).hexdigest()[:32]
    path = default_cache() / "hub" / f"{key}.jsonl.zst"
    if not path.exists():
        documents = _stream(text, name, wanted, fields)
        try:
            _store(documents, path)
        except OSError as error:
            raise as_one_line(error, path.parent) from error
    return path


def _parse(text: str) -> tuple[str, dict[str, str]]:
    name, _, query = text.removeprefix(PREFIX).partition("?")
    given = parse_qs(query, keep_blank_values=True)
    unknown = [key for key in given if key not in _KNOWN]
    if not name or unknown or any(len(values) != 1 for values in given.values()):
        raise InputError(
            f"data {text}: expected hf:NAME, or hf:NAME?config=CONFIG&split=SPLIT&documents=COUNT with any of the three"
        )
    return name, {key: values[0] for key, values in given.items()}


def _stream(text: str, name: str, wanted: dict[str, str], fields: Fields) -> Iterator[Document]:
    limit = parse_count(wanted["documents"]) if "documents" in wanted else None
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"data {text} needs the library datasets: pip install 'windtunnel[datasets]'") from error
    try:
        rows = datasets.load_dataset(name, wanted.get("config"), split=wanted.get("split", "train"), streaming=True)
        for number, record in enumerate(islice(rows, limit), 1):
            yield to_document(record, str(number), f"{text} row {number}", fields)
    except InputError:
        raise
    except Exception as error:  # the library passes on whatever its network and its readers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"data {text} cannot be streamed: {reason}") from error


def _store(documents: Iterator[Document], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False) as partial:
        temporary = Path(partial.name)
        try:
            _write(documents, partial)
            partial.flush()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _write(documents: Iterator[Document], file: Any) -> None:
    import zstandard

    target: BinaryIO = file
    with zstandard.ZstdCompressor(level=3).stream_writer(target, closefd=False) as stream:
        for document in documents:
            record: dict[str, Any] = {"text": document.text}
            if document.set is not None:
                record["meta"] = {"pile_set_name": document.set}
            stream.write(json.dumps(record).encode() + b"\n")
