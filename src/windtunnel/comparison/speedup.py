"""How many times fewer tokens the variant needs to reach the baseline's loss: estimator B, the local slope.

ln S = -Delta / s with Delta the paired loss difference at a horizon and s the slope -dL/dlnD there, averaged over both
arms: the trapezoid rule between the baseline's loss and the variant's. Valid for |ln S| <= 0.4; beyond that the curve
is inverted (estimator A, `inversion`), and where no horizon brackets the target only a bound is given.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.comparison.horizons import Horizons, Slope, local_slope
from windtunnel.comparison.inversion import horizon_bounds, invert
from windtunnel.statistics import Floats, Interval, mean_interval, standard_error, t_quantile

VALID = 0.4
DISAGREEMENT = 0.25


@dataclass(frozen=True)
class Local:
    """Estimator B at one horizon: ln S with each seed's influence on it, and the slopes that it used."""

    log_ratio: float
    influence: Floats  # seeds
    baseline_slope: float
    variant_slope: float
    used_slope: float
    slopes_disagree: bool

    def interval(self, level: float = 0.95) -> Interval:
        """Delta method with t_{n-1}; unbounded for one seed.

        The influence -(d_s - Delta) / s + Delta (s_s - s) / s^2 carries Var(Delta), Var(s) and their covariance.
        """
        if self.influence.size < 2:
            return Interval(self.log_ratio, -math.inf, math.inf)
        half = t_quantile(level, self.influence.size - 1) * standard_error(self.influence)
        return Interval(self.log_ratio, self.log_ratio - half, self.log_ratio + half)


@dataclass(frozen=True)
class Speedup:
    """S with its interval, or only a bound (censored), or neither (with the reason).

    `log` is ln S and its interval at the level asked; an end without bound is infinite. `direction` bounds ln S for the
    verdict also where S itself is censored. estimator: "A", "B" or None.
    """

    log: Interval | None
    censored: bool
    estimator: str | None
    reason: str = ""
    direction: Interval | None = None
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float | None:
        """The point estimate; None if censored or refused."""
        return None if self.log is None or self.censored else _exponential(self.log.value)

    @property
    def ends(self) -> list[float | None]:
        """[low, high] of S; None where there is no bound."""
        if self.log is None:
            return [None, None]
        low, high = (_exponential(end) if math.isfinite(end) else None for end in (self.log.low, self.log.high))
        return [low, high]

    @property
    def text(self) -> str:
        """`1.31 [1.22, 1.41]`, `< 0.80`, `> 4.00`, or the reason for which there is none."""
        if self.log is None:
            return self.reason
        low, high = self.ends
        if not self.censored:
            return f"{self.value:.2f}" if low is None or high is None else f"{self.value:.2f} [{low:.2f}, {high:.2f}]"
        if low is None:
            return f"< {high:.2f}" if high is not None else "no bound"
        return f"> {low:.2f}" if high is None else f"between {low:.2f} and {high:.2f}"

    def times(self, log_factor: float, error: float = 0.0, level: float = 0.95, blocks: int = 0) -> "Speedup":
        """S times an independent ratio known to exp(log_factor +- error): the step from tokens to FLOPs or time."""
        grow = t_quantile(level, max(blocks - 1, 1)) * error if error else 0.0

        def shifted(interval: Interval | None) -> Interval | None:
            if interval is None:
                return None
            below, above = (math.hypot(interval.value - end, grow) for end in (interval.low, interval.high))
            middle = interval.value + log_factor
            return Interval(middle, middle - below, middle + above)

        log = shifted(self.log)
        if self.censored and self.log is not None:
            log = Interval(self.log.value, self.log.low + log_factor - grow, self.log.high + log_factor + grow)
        return replace(self, log=log, direction=shifted(self.direction))


def local(horizons: Horizons, index: int) -> Local | str:
    """Estimator B at one horizon, or the reason for which it is refused."""
    slopes = [local_slope(horizons.fractions, arm, index) for arm in (horizons.baseline, horizons.variant)]
    first, second = slopes
    if first is None or second is None:
        return "no slope: only one horizon"
    pairs = horizons.difference(index)
    delta = float(pairs.mean())
    used = Slope((first.value + second.value) / 2, (first.influence + second.influence) / 2)
    if not (_positive(first) and _positive(used)):
        return "no slope: the baseline's loss does not fall significantly with tokens"
    influence = -(pairs - delta) / used.value + delta / used.value**2 * used.influence
    return Local(-delta / used.value, influence, first.value, second.value, used.value, _disagree(first, second))


def speedup(
    horizons: Horizons,
    index: int | None = None,
    prefer: str = "B",
    level: float = 0.95,
    generator: np.random.Generator | None = None,
) -> Speedup:
    """S_tok at one horizon's baseline loss (D if None) by the preferred estimator, else by the other, else a bound."""
    index = horizons.at_reference if index is None else index
    estimate = local(horizons, index)
    if isinstance(estimate, str):
        return Speedup(None, False, None, estimate)
    direction = estimate.interval(level)
    notes = ("gain depends on horizon",) if estimate.slopes_disagree else ()
    if prefer == "B" and abs(estimate.log_ratio) <= VALID:
        return Speedup(direction, False, "B", direction=direction, notes=notes)
    inverted = invert(horizons, index, level, generator or np.random.default_rng(0))
    if inverted is not None:
        interval, more = inverted
        return Speedup(interval, False, "A", direction=interval, notes=notes + more)
    if abs(estimate.log_ratio) <= VALID:
        return Speedup(direction, False, "B", direction=direction, notes=(*notes, "horizons do not bracket the target"))
    low, high = horizon_bounds(horizons, index)
    bound = Interval(math.nan, low, high)
    return Speedup(bound, True, None, "target not bracketed by the horizons", direction, notes)


def _positive(slope: Slope) -> bool:
    """Significantly above zero (two-sided 95 %), or merely positive where one seed leaves no interval."""
    if slope.influence.size < 2:
        return slope.value > 0
    return mean_interval(slope.value + slope.influence).low > 0


def _disagree(baseline: Slope, variant: Slope) -> bool:
    """The arms' slopes differ by more than 25 % and by more than their noise: the gain depends on the horizon."""
    difference = variant.value - baseline.value
    if abs(difference) <= DISAGREEMENT * baseline.value or variant.influence.size < 2:
        return False
    return 0.0 not in mean_interval(difference + variant.influence - baseline.influence)


def _exponential(value: float) -> float:
    return math.exp(min(value, 700.0))
