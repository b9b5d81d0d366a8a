"""What every tokenizer is: a table of byte strings, one a token, and a way to cut text into them.

Decoding is the table alone, so the bytes of a document's tokens join to the document, and token byte lengths add up
to its UTF-8 length: bits per byte needs that.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.files import write_file
from windtunnel.errors import InputError

RECORD_FILE = "tokenizer-record.json"

Ids: TypeAlias = npt.NDArray[np.int64]


class Tokenizer(ABC):
    """A lossless map between text and token ids.

    `begin_of_text` stands before each document; no text encodes to it, and like every special token it has no bytes.
    It is the token that the tokenizer's own library puts there (`begins`: Llama's `<s>`), else `end_of_text`.
    `prefix`: bytes that stand before every text that is not empty, once encoded (some tokenizers add a space).
    """

    kind: ClassVar[str]
    fingerprint: str
    end_of_text: int
    prefix: bytes = b""
    begins: int | None = None
    _ends: frozenset[int] = frozenset()

    def __init__(self, pieces: Sequence[bytes], end_of_text: int, fingerprint: str) -> None:
        self._pieces = list(pieces)
        self.end_of_text = end_of_text
        self.fingerprint = fingerprint
        self.token_bytes: Ids = np.array([len(piece) for piece in self._pieces], dtype=np.int64)

    @property
    def vocab(self) -> int:
        """How many ids there are, special tokens included."""
        return len(self._pieces)

    @property
    def begin_of_text(self) -> int:
        """The id before each document, which a prompt begins with."""
        return self.end_of_text if self.begins is None else self.begins

    @property
    def stops(self) -> frozenset[int]:
        """The ids that end a text: the end, the beginning of another, and what `end_at` named."""
        return self._ends | {self.end_of_text, self.begin_of_text}

    def end_at(self, ids: Iterable[int]) -> Self:
        """This tokenizer, with further ids that end a text, such as the end of a turn; they are saved with it."""
        self._ends |= {int(each) for each in ids if 0 <= int(each) < self.vocab}
        return self

    @property
    def label(self) -> str:
        """A short name for tables, such as `sentencepiece-1024`."""
        return f"{self.kind}-{self.vocab}"

    def encode(self, text: str | bytes) -> Ids:
        """The ids of one text, without `begin_of_text`. Bytes must be UTF-8 for all but the byte tokenizer."""
        return self.encode_documents([checked_text(text)])[0]

    @abstractmethod
    def encode_documents(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of many texts."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for; special tokens stand for none."""
        listed = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
        if listed and not 0 <= min(listed) <= max(listed) < self.vocab:
            raise InputError(f"token ids must be from 0 to {self.vocab - 1}, not {min(listed)} to {max(listed)}")
        return b"".join([self._pieces[i] for i in listed])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that form no character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files and a record of kind and fingerprint, the record last."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files().items():
            write_file(folder / name, data)
        record: dict[str, Any] = {"kind": self.kind, "fingerprint": self.fingerprint, "vocab": self.vocab}
        if self._ends:
            record["ends"] = sorted(self._ends)
        write_file(folder / RECORD_FILE, json.dumps(record, indent=1).encode("utf-8"))

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The files that hold this tokenizer, by name."""

    @classmethod
    @abstractmethod
    def from_files(cls, folder: Path) -> Self:
        """Read back what `files` gave; executes nothing."""


class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are bytes, 256 is the end of text. Any byte string survives the round trip."""

    kind = "bytes"

    def __init__(self) -> None:
        fingerprint = hashlib.sha256(b"windtunnel bytes 257").hexdigest()
        super().__init__([bytes([value]) for value in range(256)] + [b""], 256, fingerprint)

    def encode(self, text: str | bytes) -> Ids:
        data = text if isinstance(text, bytes) else utf8(text)
        return np.frombuffer(data, dtype=np.uint8).astype(np.int64)

    def encode_documents(self, texts: Sequence[str]) -> list[Ids]:
        return [self.encode(text) for text in texts]

    def files(self) -> dict[str, bytes]:
        return {}

    @classmethod
    def from_files(cls, folder: Path) -> Self:
        return cls()


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text; a lone surrogate, which has none, is an InputError."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        place = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise InputError(f"text holds a lone surrogate, {place}, which no UTF-8 can hold") from error


def checked_text(text: str | bytes) -> str:
    """The text itself if UTF-8 can hold it, or an InputError that says what the byte tokenizer would accept."""
    if isinstance(text, str):
        utf8(text)
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"bytes are not UTF-8 at offset {error.start} ({error.reason}); only the tokenizer 'bytes' can hold them"
        ) from error
