"""How far a study is: its phase, the share of all planned work, tokens/s, and the time left for all of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windtunnel.cli.progress import PlainLines
from windtunnel.cli.screen import console
from windtunnel.comparison.engine import Notify, Progress
from windtunnel.comparison.jobs import total_tokens
from windtunnel.comparison.study import Study
from windtunnel.training.progress import duration

_RUNS = "runs"
_BEFORE_RUNS = ("tuning", "bracket")


class _Line:
    """Turns the engine's figures into words. Time left counts this phase and, while tuning, the runs that follow."""

    def __init__(self, study: Study, folder: Path) -> None:
        self._later = _tokens_of_runs(study, folder)
        self._phase, self._began = "", time.monotonic()
        self.total = 1

    def __call__(self, progress: Progress) -> str:
        if progress.phase != self._phase:
            self._phase, self._began = progress.phase, time.monotonic()
        later = self._later if progress.phase in _BEFORE_RUNS else 0
        words = [f"{progress.phase} {progress.done}/{progress.jobs}"]
        if progress.total:
            self.total = progress.total
            words.append(f"{100 * progress.tokens / progress.total:.0f} %")
        elapsed = time.monotonic() - self._began
        if progress.tokens and elapsed > 1:
            rate = progress.tokens / elapsed
            left = (progress.total - progress.tokens + later) / rate
            words += [f"{rate:,.0f} tokens/s", f"about {duration(left)} left"]
        return " · ".join(words)


@contextmanager
def study_progress(study: Study, folder: Path) -> Iterator[Notify]:
    """A callback for `run_study`: a bar on a terminal, plain lines elsewhere."""
    line, screen = _Line(study, folder), console(stderr=True)
    if not screen.is_terminal:
        lines = PlainLines()
        yield lambda progress: lines(line(progress))
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
    with Bars(*columns, console=screen, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def report(progress: Progress) -> None:
            words = line(progress)
            bars.update(task, description=words, completed=progress.tokens, total=progress.total or None)

        yield report


def _tokens_of_runs(study: Study, folder: Path) -> int:
    """Tokens of the reported runs that are not finished."""
    return sum(
        total_tokens(settings)
        for arm in study.arms
        for seed in study.seeds(arm)
        for name, settings in study.all_settings(arm, 1e-3, seed).items()
        if not (folder / "runs" / arm.label / name / "result.json").is_file()
    )
