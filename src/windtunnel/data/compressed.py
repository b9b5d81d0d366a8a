"""Files that may be compressed, opened as a stream; a damaged one is an error, never an early end."""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

COMPRESSED_SUFFIXES = (".gz", ".zst")
_CHUNK = 1 << 17


class DamagedError(ValueError):
    """What is wrong with a compressed stream."""


def inner_suffix(path: Path) -> str:
    """The suffix of what is compressed: `.jsonl` for `a.jsonl.zst`."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED_SUFFIXES else name.suffix


def open_stream(path: Path) -> BinaryIO | io.BufferedReader:
    """A file's bytes, decompressed by its suffix. Reading raises DamagedError for a broken compressed file."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(_Gzip(gzip.open(path, "rb")), _CHUNK)
    if suffix == ".zst":
        return io.BufferedReader(_Zstandard(path.open("rb")), _CHUNK)
    return path.open("rb")


class _Raw(io.RawIOBase):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Gzip(_Raw):
    def readinto(self, buffer: Any) -> int:
        try:
            taken = self._stream.read1(len(buffer))  # what is whole comes before the error
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DamagedError(f"not a whole gzip file: {error}") from error
        buffer[: len(taken)] = taken
        return len(taken)


class _Zstandard(_Raw):
    """The frames of a file, one after the other; the library's own reader takes a file cut short for a whole one."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._input = self._output = b""
        self._frame: Any = None

    def readinto(self, buffer: Any) -> int:
        import zstandard

        try:
            while not self._output and self._decompress():
                pass
        except zstandard.ZstdError as error:
            raise DamagedError(f"not a whole Zstandard file: {error}") from error
        taken = self._output[: len(buffer)]
        self._output = self._output[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _decompress(self) -> bool:
        """Take in some input; False at the end of the file."""
        import zstandard

        self._input = self._input or self._stream.read(_CHUNK)
        if not self._input:
            if self._frame is not None:
                raise DamagedError("not a whole Zstandard file: it ends inside a frame")
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._output = self._frame.decompress(self._input)
        self._input = b""
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None
        return True
