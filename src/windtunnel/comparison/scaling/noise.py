"""How sure a fit is: its residuals drawn again over all runs, everything refitted, percentiles expanded to the t's.

The design is kept: resampling whole runs would leave budgets with too few sizes to have a best one. Residuals count
relative to the loss and are scaled by sqrt(n / (n - parameters)), so that what the law cannot follow widens the
intervals as noise between seeds does.
"""

from dataclasses import dataclass

import numpy as np

from windtunnel.comparison.resampling import percentile_interval
from windtunnel.statistics import Floats, Interval

DRAWS = 1000
BAND = 0.9
LARGEST_ERROR = 0.02
_PRECISION = 1e-4  # of the search: noise-free losses have bands narrower than this


@dataclass(frozen=True)
class Residuals:
    """Centred residuals ln(measured / fitted) of a fit, scaled to their degrees of freedom."""

    values: Floats
    freedom: int

    @classmethod
    def of(cls, measured: Floats, fitted: Floats, parameters: int) -> "Residuals":
        """Of a fit with so many parameters; it needs more runs than these."""
        logs = np.log(measured / fitted)
        freedom = measured.size - parameters
        return cls((logs - logs.mean()) * np.sqrt(measured.size / freedom), freedom)

    @property
    def deviation(self) -> float:
        """Relative standard deviation of a run about the fit."""
        return float(np.sqrt(np.mean(self.values**2)))

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Floats:
        """Residuals with replacement."""
        return generator.choice(self.values, shape)

    def interval(self, value: float, draws: Floats, level: float = 0.95) -> Interval:
        """Percentile interval of refits, as wide as these degrees of freedom ask."""
        return percentile_interval(value, draws, self.freedom + 1, level)


@dataclass(frozen=True)
class HoldOut:
    """The largest budget, predicted from the others.

    error: ln(measured / predicted); [low, high]: where 90 % of such errors would lie if the law held.
    """

    compute: float
    error: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Inside its band, and no more than 2 % of the loss."""
        return self._inside and abs(self.error) <= LARGEST_ERROR

    @property
    def _inside(self) -> bool:
        return self.low - _PRECISION <= self.error <= self.high + _PRECISION

    @property
    def reason(self) -> str:
        """Why it did not pass; empty where it did."""
        said = f"the largest budget, held out, is missed by {100 * self.error:+.2g} % of the loss"
        band = f"[{100 * self.low:+.2g}, {100 * self.high:+.2g}] %"
        if abs(self.error) > LARGEST_ERROR:
            return f"{said}; at most {100 * LARGEST_ERROR:g} % is allowed: add a budget between the two largest"
        if not self._inside:
            return f"{said}, outside its 90 % band {band}: fit from a larger smallest budget, or add a larger one"
        return ""


def held_out(compute: float, measured: Floats, predicted: Floats, noise: Floats, residuals: Residuals) -> HoldOut:
    """Means over what was held out. predicted [1 + draws, points]: the fit, then its refits; noise [draws points].

    `residuals` are those of the fit without it: they say how much wider than its percentiles the band is.
    """
    logs = np.log(predicted)
    error = float((np.log(measured) - logs[0]).mean())
    spread = (noise - (logs[1:] - logs[0])).mean(axis=1)
    band = residuals.interval(0.0, spread, BAND)
    return HoldOut(compute, error, band.low, band.high)
