"""Work that can be interrupted: parts of an evaluation are kept as they are done, and read back the next time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from windtunnel.checkpoint import read_json, write_json


class Progress(NamedTuple):
    """How far all evaluations are, in tokens read by models; what: the one at work."""

    what: str
    done: int
    total: int
    seconds_left: float | None


Report = Callable[[Progress], None]


class Meter:
    """Counts tokens over all evaluations; the time left follows from those that were read, not from those kept."""

    def __init__(self, total: int, report: Report | None) -> None:
        self.what, self.done = "", 0
        self._total, self._report = max(total, 1), report
        self._read, self._began = 0, time.monotonic()

    def read(self, tokens: int) -> None:
        """So many tokens more have been read by a model."""
        self._read += tokens
        self._move(tokens)

    def skip(self, tokens: int) -> None:
        """So many need not be read."""
        self._move(tokens)

    def _move(self, tokens: int) -> None:
        self.done += tokens
        if self._report is not None:
            left = max(self._total - self.done, 0)
            seconds = left * (time.monotonic() - self._began) / self._read if self._read else None
            self._report(Progress(self.what, min(self.done, self._total), self._total, seconds))


class Work:
    """One evaluation of one run: a file of figures, or of those parts of them that are done.

    about: what the figures depend on, kept beside them.
    """

    def __init__(self, path: Path, about: dict[str, Any], meter: Meter) -> None:
        self._path, self._meter, self._left = path, meter, 0
        self._kept: dict[str, Any] = {"about": about, "parts": {}, "figures": None}
        if path.is_file():
            self._kept = read_json(path)

    @property
    def figures(self) -> dict[str, Any] | None:
        """The figures, where the evaluation is done."""
        return self._kept["figures"]  # type: ignore[no-any-return]

    def part(self, name: str, tokens: int, compute: Callable[[], Any]) -> Any:
        """A part by its name: as it was kept, or computed now and kept; plain JSON. tokens: that it takes to read."""
        parts = self._kept["parts"]
        if name in parts:
            self._meter.skip(tokens)
            return parts[name]
        self._left = tokens
        parts[name] = compute()
        self.read(self._left)
        self._save()
        return parts[name]

    def read(self, tokens: int) -> None:
        """So many tokens of the part at work have been read; more than it takes, as with padding, are not counted."""
        self._left -= (counted := min(tokens, self._left))
        self._meter.read(counted)

    def finish(self, figures: dict[str, Any]) -> dict[str, Any]:
        """Keep the figures; the parts are in them, or of no use any more."""
        self._kept.update(figures=figures, parts={})
        self._save()
        return figures

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, self._kept)
