"""How far work is: one moving line on a terminal, a plain line now and then elsewhere; always on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from windtunnel.cli.screen import console

if TYPE_CHECKING:
    from windtunnel.evaluation.work import Progress as Asked
    from windtunnel.training.progress import Report

_PLAIN_SECONDS = 10.0
_STAGES = {
    "divide": "choosing held-out documents",
    "tokenizer": "training the tokenizer",
    "encode": "encoding",
    "overlap": "measuring the overlap of held-out and training text",
}


class PlainLines:
    """Prints a line on stderr, at most one every ten seconds; the first comes at once."""

    def __init__(self, seconds: float = _PLAIN_SECONDS) -> None:
        self._seconds, self._printed = seconds, -float("inf")

    def __call__(self, line: str, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._printed >= self._seconds:
            self._printed = now
            print(line, file=sys.stderr, flush=True)


@contextmanager
def training_progress(name: str) -> "Iterator[Report]":
    """A callback for `train`: percentage, loss, tokens/s, MFU, time left."""
    from windtunnel.training.progress import Progress, figures, progress_line

    with progress_line(name) as drawn:
        if drawn is not None:
            yield drawn
            return
        lines = PlainLines()

        def report(progress: Progress) -> None:
            lines(f"{name}: {figures(progress)}")

        yield report


@contextmanager
def stage_progress(name: str) -> Iterator[Callable[[str, float], None]]:
    """A callback (stage, share done) for preparing data."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        lines, seen = PlainLines(), set[str]()

        def plain(stage: str, share: float) -> None:
            lines(f"{name}: {_words(stage, share)}", force=stage not in seen)
            seen.add(stage)

        yield plain
        return
    with screen.status(f"{name} ...") as status:
        yield lambda stage, share: status.update(f"{name}: {_words(stage, share)}")


def _words(stage: str, share: float) -> str:
    words = _STAGES.get(stage, stage)
    return f"{words}, {100 * share:.0f} %" if 0 < share < 1 else words


@contextmanager
def bytes_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (bytes done, bytes in all) for weights on their way, with the time left."""
    screen, begun = console(stderr=True), time.monotonic()

    def words(done: int, total: int) -> str:
        left = (time.monotonic() - begun) * (total - done) / max(done, 1)
        return f"{name}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, {left:.0f} s left"

    if not screen.is_terminal:
        lines = PlainLines()
        yield lambda done, total: lines(words(done, total))
        return
    with screen.status(f"{name} ...") as status:
        yield lambda done, total: status.update(words(done, total))


@contextmanager
def evaluation_progress() -> "Iterator[Callable[[Asked], None]]":
    """A callback for `evaluate`: the run and the question at work, percentage, time left."""
    from windtunnel.training.progress import duration

    def words(progress: "Asked") -> str:
        left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
        return f"{progress.what}: {100 * progress.done / progress.total:.0f} %{left}"

    screen = console(stderr=True)
    if not screen.is_terminal:
        lines = PlainLines()
        yield lambda progress: lines(words(progress))
        return
    with screen.status("evaluating ...") as status:
        yield lambda progress: status.update(words(progress))
