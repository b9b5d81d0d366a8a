"""Contestants of one process, timed in turns, so that the machine's moods fall on all of them alike."""

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from windtunnel.bench.spread import Ratio, paired_ratio

Say = Callable[[str], None]


def take_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, say: Say = lambda words: None
) -> dict[str, list[float]]:
    """Seconds of every contestant in every round, in an order that rotates; each runs once before, unmeasured."""
    for warm_up in contestants.values():
        warm_up()
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        say(f"round {index + 1} of {rounds}")
        first = index % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def compared(seconds: Mapping[str, list[float]], baseline: str) -> list[dict[str, Any]]:
    """For each contestant its median time and its time over the baseline's of the same round, with 95 % intervals."""
    return [
        {
            "label": name,
            "median_seconds": statistics.median(taken),
            "seconds": taken,
            "ratio": paired_ratio(taken, seconds[baseline])._asdict(),
        }
        for name, taken in seconds.items()
    ]


def race(
    benchmark: str,
    contestants: Mapping[str, Callable[[], object]],
    baseline: str,
    *,
    shape: Any,
    rounds: int,
    threads: int,
    say: Say = lambda words: None,
) -> dict[str, Any]:
    """Time contestants on so many threads; the figures as JSON values. shape: a dataclass of the problem's sizes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds = take_turns(contestants, rounds, say)
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": benchmark,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "threads": threads},
        "contestants": compared(seconds, baseline),
    }


def figures(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """A contestant's cells in a table: its label, its median in milliseconds, its ratio with the interval."""
    return row["label"], f"{1e3 * row['median_seconds']:.1f}", str(Ratio(**row["ratio"]))
