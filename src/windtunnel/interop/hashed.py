"""A file that is hashed while it is written: a second thread has the bytes that the first hands to the disk."""

import hashlib
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_PIECE, _WAITING = 1 << 23, 8  # bytes that are hashed at once, and how many such pieces may wait
_WRITE = 1 << 18  # bytes of a call: with 512 KiB or more ext4 (Linux 6.18, large folios) takes two to six times as long


class HashedFile:
    """Written from the beginning to the end, inside `with`; afterwards `described` says how long it is and its SHA-256.

    What is handed over must not change until then. At most `_WAITING` pieces of `_PIECE` bytes wait to be hashed.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._bytes, self._digest = path, 0, hashlib.sha256()
        self._pieces: queue.Queue[memoryview | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._hash, name="hash", daemon=True)

    def __enter__(self) -> Self:
        self._file = self._path.open("wb", buffering=0)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pieces.put(None)
        self._thread.join()
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes."""
        whole = memoryview(data).cast("B")
        for first in range(0, len(whole), _PIECE):
            piece = whole[first : first + _PIECE]
            self._pieces.put(piece)
            while len(piece):
                piece = piece[self._file.write(piece[:_WRITE]) :]
        self._bytes += len(whole)

    @property
    def described(self) -> dict[str, Any]:
        """What a checkpoint's index holds of a file."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def _hash(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._digest.update(piece)
