"""Axes: from a value to a position, and the ticks a person would choose."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(k / 10 for k in range(10, 100)))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear or logarithmic map of [low, high] onto the positions [start, end]."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value; on a log axis, values at or below zero lie at the start."""
        if self.log and value <= 0:
            return self.start
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def inside(self, value: float) -> bool:
        """Whether the value lies on the axis."""
        return self.low <= value <= self.high

    def ticks(self, most: int, base: int = 10) -> list[float]:
        """At most `most` round values inside the axis (at least two where round values allow it)."""
        if not self.log:
            return _linear_ticks(self.low, self.high, most)
        return _powers(self.low, self.high, most, 2.0) if base == 2 else _log_ticks(self.low, self.high, most)


def limits(values: Iterable[float], *, log: bool = False, padding: float = 0.06) -> tuple[float, float]:
    """Limits that hold all values with some air; a single value gets a range around it."""
    known = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not known:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(known), max(known)
    if log:
        air = padding * math.log(high / low) if high > low else math.log(1.5)
        return low * math.exp(-air), high * math.exp(air)
    air = padding * (high - low) if high > low else 0.5 * abs(high) or 0.5
    return low - air, high + air


def decimals(values: Sequence[float]) -> int:
    """How many decimals tell ascending values apart and lose none of their steps."""
    step = min((b - a for a, b in itertools.pairwise(values)), default=max(map(abs, values), default=1.0) or 1.0)
    return next((d for d in range(12) if all(abs(round(v, d) - v) < 1e-3 * step for v in values)), 12)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """The densest of a few round patterns that stays within `most`; thinned powers of ten over many decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    best: list[float] = []
    for steps in _STEPS:
        every = [m * 10.0**k for k in range(first, last + 1) for m in steps]
        inside = [float(f"{v:.12g}") for v in every if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        if len(inside) > most:
            break
        best = inside
        if len(best) >= max(3, most - 2):
            break
    if len(best) < 2 and high / low < 10:
        return _linear_ticks(low, high, most)
    return best or _powers(low, high, most, 10.0)


def _powers(low: float, high: float, most: int, base: float) -> list[float]:
    """Whole powers, every second or third of them where there are too many."""
    exponents = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
    powers = [base**k for k in exponents if low * (1 - 1e-9) <= base**k <= high * (1 + 1e-9)]
    return powers[:: max(1, math.ceil(len(powers) / max(most, 1)))]
