"""Long texts cut at line ends into pieces, from a stream: a text of any length takes the memory of one piece."""

import io
from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 1 << 20
_CHARACTER = 4  # bytes of the longest character


def cut(text: str, size: int) -> Iterator[str]:
    """Cut a text at line ends into pieces of at most `size` bytes; a longer line is cut between characters."""
    for piece in pieces(io.BytesIO(text.encode("utf-8")), size):
        yield piece.decode("utf-8")


def pieces(stream: BinaryIO | io.BufferedReader, size: int, head: bytes = b"") -> Iterator[bytes]:
    """The same of UTF-8 bytes: `head`, and what the stream still holds."""
    data, start, ended = head, 0, False
    while True:
        while not ended and len(data) - start < size + _CHARACTER:
            more = stream.read(max(_CHUNK, size))
            data, start, ended = data[start:] + more, 0, not more
        if start >= len(data):
            return
        end = min(start + size, len(data))
        if end < len(data):
            newline = data.rfind(b"\n", start, end)
            end = newline + 1 if newline >= 0 else _character_start(data, start, end)
        yield data[start:end]
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
