"""Ratios with their spread, from measurements that took turns."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Ratio(NamedTuple):
    """A geometric mean of paired ratios with its 95 % interval (Student's t on their logarithms)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """The ratio of measurements made in the same rounds; with one round its interval is unbounded."""
    logs = np.log(np.asarray(numerators) / np.asarray(denominators))
    mean = float(logs.mean())
    if logs.size < 2:
        return Ratio(math.exp(mean), 0.0, math.inf)
    half = float(stats.t.ppf(0.975, logs.size - 1)) * float(logs.std(ddof=1)) / math.sqrt(logs.size)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def mean_of(values: Sequence[float]) -> dict[str, float]:
    """The geometric mean of measurements with its 95 % interval, by name."""
    return paired_ratio(values, [1.0] * len(values))._asdict()


def spelled(value: Mapping[str, float], form: Callable[[float], str]) -> str:
    """A ratio or a mean, by name, with its interval; none where one round cannot give it."""
    ratio = Ratio(**value)
    if not math.isfinite(ratio.high):
        return form(ratio.value)
    return f"{form(ratio.value)} [{form(ratio.low)}, {form(ratio.high)}]"
