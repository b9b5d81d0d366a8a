"""Numbers with their intervals, as JSON keeps them, and figures of several seeds put together.

An estimate is `{"value", "low", "high", "n", "over"}`: the ends of a 95 % interval (None where n is 1), and how many of
what it is taken over: documents, items or seeds.
"""

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from windtunnel.report.figures import fixed, signed
from windtunnel.statistics import Interval, mean_interval, ratio_interval, sample, wilson_interval

Figures = dict[str, Any]
_KEYS = {"value", "low", "high", "n", "over"}


def over_documents(sums: ArrayLike, counts: ArrayLike) -> Figures:
    """sum / count, from the sum and the count of each document; documents without a count say nothing.

    The value is None where no document has one.
    """
    sizes = sample(counts, "counts")
    there = sizes > 0
    if not there.any():
        return {"value": None, "low": None, "high": None, "n": 0, "over": "documents"}
    totals = sample(sums, "sums")[there]
    return _estimate(ratio_interval(totals, sizes[there]), int(there.sum()), "documents")


def over_items(right: int, items: int) -> Figures:
    """A share of independent items (Wilson)."""
    return _estimate(wilson_interval(right, items), items, "items")


def pooled(seeds: Sequence[Any]) -> Any:
    """Figures of one arm's seeds as one: estimates become means with t intervals over seeds, the rest must agree.

    Numbers that are no estimates and do not agree become None. With one seed everything stays as it is.
    """
    first = seeds[0]
    if len(seeds) == 1:
        return first
    if is_estimate(first) and any(seed["value"] is None for seed in seeds):
        return {"value": None, "low": None, "high": None, "n": 0, "over": "seeds"}
    if is_estimate(first):
        return _estimate(mean_interval([seed["value"] for seed in seeds]), len(seeds), "seeds")
    if isinstance(first, dict):
        return {name: pooled([seed[name] for seed in seeds]) for name in first}
    if isinstance(first, list) and all(len(seed) == len(first) for seed in seeds):
        return [pooled(list(items)) for items in zip(*seeds, strict=True)]
    return first if all(seed == first for seed in seeds) else None


def is_estimate(value: Any) -> bool:
    """Whether this is a number with its interval."""
    return isinstance(value, dict) and value.keys() == _KEYS


def spelled(estimate: Figures, digits: int = 3, sign: bool = False) -> str:
    """`4.013 [3.990, 4.036]`."""
    form = signed if sign else fixed
    text = form(estimate["value"], digits)
    if estimate["low"] is None:
        return text
    return f"{text} [{form(estimate['low'], digits)}, {form(estimate['high'], digits)}]"


def _estimate(interval: Interval, n: int, over: str) -> Figures:
    low, high = (end if math.isfinite(end) else None for end in interval.ends)
    return {"value": interval.value, "low": low, "high": high, "n": n, "over": over}
