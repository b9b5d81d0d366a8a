"""What a run writes while it trains: `metrics.jsonl`, and TensorBoard's event files where tensorboard is installed."""

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import sync
from windtunnel.errors import InputError, WorkError

_logger = logging.getLogger(__name__)
_FLUSH_ROWS, _FLUSH_SECONDS = 256, 2.0
_SCALARS = ("loss", "lr", "grad_norm", "evaluation_loss", "bits_per_byte", "accuracy")
_told: set[str] = set()


class MetricsLog:
    """Rows of JSON appended to a file, buffered. A resumed run first cuts the file back to where its checkpoint was."""

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path = path
        written = path.stat().st_size if path.exists() else 0
        if written < length:
            raise InputError(
                f"{path}: holds {written} bytes where the checkpoint says {length}; it was cut or replaced"
            )
        self._file = path.open("ab")
        self._file.truncate(length)
        self._file.seek(0, os.SEEK_END)  # what was cut off must not count in the next checkpoint's length
        self._buffer: list[str] = []
        self._flushed = time.monotonic()

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; what is not finite becomes null."""
        self._buffer.append(json.dumps(_finite(row), allow_nan=False) + "\n")
        if len(self._buffer) >= _FLUSH_ROWS or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand the rows to the operating system."""
        rows, self._buffer = self._buffer, []
        try:
            self._file.write("".join(rows).encode())
            self._file.flush()
        except OSError as error:
            raise WorkError(f"{self._file.name}: cannot write: {error}; the last checkpoint is kept") from error
        self._flushed = time.monotonic()

    def settle(self) -> int:
        """Flush; returns the length of the file, which a checkpoint records, after `sync`."""
        self.flush()
        return self._file.tell()

    def sync(self) -> None:
        """Bring what was flushed to the disk itself; another thread may append meanwhile."""
        try:
            sync(self.path)
        except OSError as error:
            raise WorkError(f"{self.path}: cannot write: {error}; the last checkpoint is kept") from error

    def close(self) -> None:
        """Write what is left."""
        try:
            self.flush()
        finally:
            self._file.close()


class NoLog:
    """What stands in for the log in processes that write none."""

    def append(self, row: dict[str, Any]) -> None:
        """Drop a row."""

    def settle(self) -> int:
        """Nothing is written."""
        return 0

    def sync(self) -> None:
        """Nothing is to be brought to the disk."""

    def close(self) -> None:
        """Nothing is open."""


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class EventLog:
    """TensorBoard events, one subfolder for the trunk and one for each cooldown branch."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder, self._first_step = folder, first_step
        self._writers: dict[str, Any] = {}
        self._available = _tensorboard_installed()

    def append(self, row: dict[str, Any]) -> None:
        """Write the scalars of a row as one event (a call of torch's `add_scalar` for each takes 4x as long)."""
        if not self._available:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=row[name]) for name in _SCALARS if row.get(name) is not None]
        event = Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values))
        with self._reported():
            self._writer(row["horizon"]).add_event(event)

    def rewind(self, horizon: float | None, step: int) -> None:
        """Tell readers to drop what came after a step."""
        if self._available:
            with self._reported():
                self._restart(self._writer(horizon), step)

    def close(self) -> None:
        """Finish the event files."""
        with self._reported():
            for writer in self._writers.values():
                writer.close()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """tensorboard writes in a thread; what failed there is raised by a later call."""
        try:
            yield
        except OSError as error:
            raise WorkError(f"{self._folder}: cannot write: {error}; the last checkpoint is kept") from error

    def _writer(self, horizon: float | None) -> Any:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        name = "trunk" if horizon is None else f"horizon-{horizon}"
        if name not in self._writers:
            self._writers[name] = writer = EventFileWriter(str(self._folder / name))
            self._restart(writer, self._first_step)  # what a killed run wrote beyond this step
        return self._writers[name]

    def _restart(self, writer: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = SessionLog(status=SessionLog.START)
        writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))


def _tensorboard_installed() -> bool:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        if "tensorboard" not in _told:
            _told.add("tensorboard")
            _logger.warning("tensorboard is not installed: no event files (pip install 'windtunnel[tensorboard]')")
        return False
    return True
