"""Losses of two arms at several fully decayed horizons, and the local slope of loss in ln(tokens)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from windtunnel.errors import InputError
from windtunnel.statistics import Floats, sample

STEEPEST, FLATTEST = 4.0, -2.0  # exponents of the local power law beyond which three points say nothing


@dataclass(frozen=True)
class Horizons:
    """Final losses by horizon, seeds paired by position. `fractions`: horizon / D, ascending; 1.0 is among them."""

    fractions: tuple[float, ...]
    baseline: Floats  # horizons seeds
    variant: Floats  # horizons seeds

    @classmethod
    def of(cls, variant: Mapping[float, Sequence[float]], baseline: Mapping[float, Sequence[float]]) -> "Horizons":
        """Keeps the horizons that both arms have with the same number of seeds as at D."""
        first = {float(key): sample(value, f"variant at horizon {key}") for key, value in variant.items()}
        second = {float(key): sample(value, f"baseline at horizon {key}") for key, value in baseline.items()}
        if 1.0 not in first or 1.0 not in second:
            raise InputError(f"horizons: 1.0 is missing from {sorted(first)} or {sorted(second)}")
        seeds = first[1.0].size
        if second[1.0].size != seeds:
            raise InputError(f"variant has {seeds} seeds at D and baseline {second[1.0].size}: pairs need the same")
        kept = [key for key in sorted(first) if key in second and first[key].size == second[key].size == seeds]
        return cls(tuple(kept), np.stack([second[key] for key in kept]), np.stack([first[key] for key in kept]))

    @property
    def seeds(self) -> int:
        return int(self.baseline.shape[1])

    @property
    def at_reference(self) -> int:
        """Index of the horizon D."""
        return self.fractions.index(1.0)

    def difference(self, index: int) -> Floats:
        """Variant minus baseline by seed at one horizon."""
        pairs: Floats = self.variant[index] - self.baseline[index]
        return pairs


@dataclass(frozen=True)
class Slope:
    """-dL / dlnD of one arm at one horizon: the value at the seed means, and each seed's linear influence on it."""

    value: float
    influence: Floats  # seeds, mean zero


def nearest_horizons(fractions: Sequence[float], index: int, most: int = 3) -> list[int]:
    """The `most` horizons nearest to one in ln(tokens), ascending; of two equally near the longer one is first."""
    here = math.log(fractions[index])
    order = sorted(range(len(fractions)), key=lambda i: (round(abs(math.log(fractions[i]) - here), 6), -fractions[i]))
    return sorted(order[:most])


def local_slope(fractions: Sequence[float], losses: Floats, index: int) -> Slope | None:
    """Slope of one arm at horizon `index` from the horizons that exist; None with a single horizon.

    losses: horizons x seeds. Two horizons: the plain difference quotient, which is the mean slope between them. Three:
    the power law L = E + B D^-b through the three seed means. A parabola in ln D, the other candidate, misses the
    slope at an end point by 28 % at b = 1 (LOG.md); at b -> 0 the two agree.
    """
    chosen = nearest_horizons(fractions, index)
    if len(chosen) < 2:
        return None
    positions = np.log([fractions[i] for i in chosen])
    means, here = losses[chosen].mean(axis=1), math.log(fractions[index])
    value = _slope_at(positions, means, here)
    centred = losses[chosen] - means[:, None]  # chosen seeds
    return Slope(value, _gradient(positions, means, here) @ centred)


def inverse(positions: Floats, losses: Floats, target: float) -> float:
    """ln D at which the curve through two or three falling points has the target loss; inf if it never does."""
    exponent = _exponent(positions, losses) if positions.size == 3 else 0.0
    scale = (losses[0] - losses[-1]) / _integral(exponent, positions[0], positions[-1])
    fall = float((losses[0] - target) / scale)  # = integral of exp(-b x) from the first point to the answer
    if abs(exponent) < 1e-8:
        return float(positions[0]) + fall
    remaining = 1 - exponent * fall * math.exp(exponent * positions[0])
    if remaining <= 0:
        return math.inf if exponent > 0 else -math.inf
    return float(positions[0]) - math.log(remaining) / exponent


def _slope_at(positions: Floats, losses: Floats, here: float) -> float:
    if positions.size == 2:
        return float((losses[0] - losses[1]) / (positions[1] - positions[0]))
    exponent = _exponent(positions, losses)
    outer = _integral(exponent, positions[0], positions[2])
    return float((losses[0] - losses[2]) * math.exp(-exponent * here) / outer)


def _gradient(positions: Floats, losses: Floats, here: float) -> Floats:
    """dslope / dloss by central differences, with a step far below any loss's noise."""
    step = 1e-5 * max(float(np.ptp(losses)), 1e-6)
    shifts = step * np.eye(losses.size)
    return np.array(
        [(_slope_at(positions, losses + s, here) - _slope_at(positions, losses - s, here)) / (2 * step) for s in shifts]
    )


def _integral(exponent: float, start: float, end: float) -> float:
    """Integral of exp(-b x) over [start, end]: what a unit slope at x = 0 loses between two horizons."""
    if abs(exponent) < 1e-8:
        return end - start
    return (math.exp(-exponent * start) - math.exp(-exponent * end)) / exponent


def _exponent(positions: Floats, losses: Floats) -> float:
    """b of the power law through three points: the share of the fall that lies before the middle one fixes it."""
    total = float(losses[0] - losses[2])
    first = float(losses[0] - losses[1])

    def excess(exponent: float) -> float:
        share = _integral(exponent, positions[0], positions[1]) / _integral(exponent, positions[0], positions[2])
        return share * total - first

    if total <= 0 or excess(STEEPEST) <= 0:
        return STEEPEST if total > 0 else 0.0
    if excess(FLATTEST) >= 0:
        return FLATTEST
    return float(optimize.brentq(excess, FLATTEST, STEEPEST, xtol=1e-12))
