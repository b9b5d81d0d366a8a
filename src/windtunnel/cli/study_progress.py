"""How far a study or a ladder is: its phase, the share of its work, its speed, and the time left for all of it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from windtunnel.cli.progress import PlainLines
from windtunnel.cli.screen import console
from windtunnel.comparison.jobs import total_tokens
from windtunnel.comparison.study import Study
from windtunnel.comparison.work import Notify, Progress
from windtunnel.training.progress import duration

_BEFORE_RUNS = ("tuning", "bracket")


class _Line:
    """Turns figures into words. Time left counts this phase and, as `later` says, what follows it."""

    def __init__(self, later: Mapping[str, float], unit: str) -> None:
        self._later, self._unit = later, unit
        self._work, self._began = ("", 0), time.monotonic()

    def __call__(self, progress: Progress) -> str:
        work = progress.phase, progress.total  # a sweep that is widened at its edge is the same phase with other work
        if work != self._work:
            self._work, self._began = work, time.monotonic()
        later = self._later.get(progress.phase, 0)
        words = [f"{progress.phase} {progress.done}/{progress.jobs}"]
        if progress.total:
            words.append(f"{100 * progress.tokens / progress.total:.0f} %")
        elapsed = time.monotonic() - self._began
        if progress.tokens and elapsed > 1:
            rate = progress.tokens / elapsed
            left = (progress.total - progress.tokens + later) / rate
            words += [f"{rate:,.0f} {self._unit}/s"] if self._unit else []
            words.append(f"about {duration(left)} left")
        return " · ".join(words)


def study_progress(study: Study, folder: Path) -> AbstractContextManager[Notify]:
    """A callback for `run_study`."""
    runs = _tokens_of_runs(study, folder)
    return work_progress(dict.fromkeys(_BEFORE_RUNS, runs), "tokens")


@contextmanager
def work_progress(later: Mapping[str, float], unit: str = "") -> Iterator[Notify]:
    """A callback for work in phases: a bar on a terminal, plain lines elsewhere.

    later: weight of the jobs that follow a phase. unit: what the weights count, where that is worth telling.
    """
    line, screen = _Line(later, unit), console(stderr=True)
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
