"""A file that is hashed while it is written, so that nobody has to read it again."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import xxhash

_WRITE = 1 << 18  # bytes of a call: with 512 KiB or more ext4 (Linux 6.18, large folios) takes two to six times as long


class HashedFile:
    """Written from the beginning to the end, inside `with`; `described` says how long it is and its hash."""

    def __init__(self, path: Path) -> None:
        self._path, self._bytes, self._digest = path, 0, xxhash.xxh3_128()

    def __enter__(self) -> Self:
        self._file = self._path.open("wb", buffering=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes."""
        left = memoryview(data).cast("B")
        while len(left):
            piece = left[: self._file.write(left[:_WRITE])]
            self._digest.update(piece)
            self._bytes += len(piece)
            left = left[len(piece) :]

    @property
    def described(self) -> dict[str, Any]:
        """What a checkpoint's index holds of a file."""
        return {"bytes": self._bytes, "xxh3": self._digest.hexdigest()}
