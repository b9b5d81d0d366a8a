"""How far a run is: the figures handed to a callback, and a line that shows them in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Progress(NamedTuple):
    """Figures of a run in the making; rates are those of this session, evaluation excluded.

    tokens, total: steps done and to do, cooldown branches included, in tokens. loss is the latest known.
    utilisation:   model FLOPs a second / measured peak of matrix products (MFU); None without a FLOP count.
    """

    tokens: int
    total: int
    loss: float | None
    tokens_per_second: float
    utilisation: float | None
    seconds_left: float | None
    horizon: float | None


Report = Callable[[Progress], None]


@contextmanager
def progress_line(name: str, shown: bool | None = None) -> Iterator[Report | None]:
    """A callback that draws one line with rich, or None: by default only where a terminal is attached."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, force_terminal=shown)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[figures]}"))
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=1, figures="starting")

        def report(progress: Progress) -> None:
            bars.update(task, completed=progress.tokens, total=progress.total, figures=figures(progress))

        yield report


def figures(progress: Progress) -> str:
    """The figures of a progress line as text."""
    parts = [f"{100 * progress.tokens / progress.total:.0f} %"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.utilisation is not None:
        parts.append(f"MFU {100 * progress.utilisation:.0f} %")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
