"""Estimator A: the variant's loss curve over fully decayed horizons, inverted at the baseline's loss.

Isotonic regression, then the power law L = E + B D^-b through the three horizons nearest to the target, monotone and
exact where the curve is one; extrapolation by at most 1.25x. PCHIP, the usual interpolant, is biased where the curve
bends: at b = 1 and S = 0.8 it finds 0.85 and its interval covers 0.8 in 17 % of studies, not 95 (LOG.md).
"""

import math

import numpy as np
from scipy import optimize

from windtunnel.comparison.horizons import Horizons, inverse
from windtunnel.comparison.resampling import bootstrap, percentile_interval
from windtunnel.statistics import Floats, Interval

FEWEST_HORIZONS = 3
REACH = math.log(1.25)


def tokens_to_reach(positions: Floats, losses: Floats, target: float) -> float:
    """ln D at which a falling curve through (ln D, loss) has the target loss.

    -inf where even the shortest horizon is far below the target, inf where the longest does not come near it: the curve
    goes on by at most 1.25x beyond either end.
    """
    knots, levels = falling(positions, losses)
    if levels.size < 2:
        return math.nan
    first = int(np.clip(np.argmin(np.abs(levels - target)) - 1, 0, max(levels.size - 3, 0)))
    reached = inverse(knots[first : first + 3], levels[first : first + 3], target)
    if reached > positions[-1] + REACH:
        return math.inf
    return -math.inf if reached < positions[0] - REACH else reached


def falling(positions: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """The nearest non-increasing curve, each flat stretch one knot at its mean position."""
    fitted = optimize.isotonic_regression(losses, increasing=False).x
    levels, members = np.unique(-fitted, return_inverse=True)
    members = members.reshape(-1)
    return np.bincount(members, weights=positions) / np.bincount(members), -levels


def invert(
    horizons: Horizons, index: int, level: float, generator: np.random.Generator
) -> tuple[Interval, tuple[str, ...]] | None:
    """ln S at the baseline's mean loss of one horizon, with notes; None where the variant's horizons do not reach it.

    Interval: t-expanded bootstrap over seeds, both arms together. A resample that does not reach the target counts as
    an infinite one, so an end of the interval may be open; it is then the bound that the horizons give.
    """
    if len(horizons.fractions) < FEWEST_HORIZONS:
        return None
    positions = np.log(horizons.fractions)

    def log_ratio(seeds: np.ndarray) -> float:
        target = float(horizons.baseline[index, seeds].mean())
        return float(positions[index] - tokens_to_reach(positions, horizons.variant[:, seeds].mean(axis=1), target))

    value = log_ratio(np.arange(horizons.seeds))
    if not math.isfinite(value):
        return None
    notes = _notes(horizons)
    if horizons.seeds < 2:
        return Interval(value, -math.inf, math.inf), notes
    draws = bootstrap(log_ratio, horizons.seeds, generator)
    reached = float(np.mean(np.isfinite(draws)))
    interval = percentile_interval(value, np.where(np.isnan(draws), -math.inf, draws), horizons.seeds, level)
    if reached < 1:
        notes = (*notes, f"{100 * reached:.1f} % of the resamples reach the target")
    return interval, notes


def horizon_bounds(horizons: Horizons, index: int) -> tuple[float, float]:
    """ln S between which the horizons put it: D / D_max if never reached, D / D_min if reached by the shortest."""
    here = math.log(horizons.fractions[index])
    target = float(horizons.baseline[index].mean())
    means = horizons.variant.mean(axis=1)
    reached = [f for f, loss in zip(horizons.fractions, means, strict=True) if loss <= target]
    missed = [f for f, loss in zip(horizons.fractions, means, strict=True) if loss > target]
    low = here - math.log(min(reached)) if reached else -math.inf
    before = [f for f in missed if not reached or f < min(reached)]
    return low, here - math.log(max(before)) if before else math.inf


def _notes(horizons: Horizons) -> tuple[str, ...]:
    means = horizons.variant.mean(axis=1)
    return ("loss not monotone in tokens; isotonic regression used",) if (np.diff(means) > 0).any() else ()
