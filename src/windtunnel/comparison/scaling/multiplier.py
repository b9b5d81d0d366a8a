"""How much compute one arm saves another: L_B(C) = g(C), L_V(C) = g(m C) through the best sizes, with one E for both.

With one exponent m is one number. With an exponent for each arm it changes with compute: it is read at both ends, with
the compute at which the arms meet. A likelihood ratio decides; its distribution comes from refits of losses drawn under
one exponent.
"""

from dataclasses import dataclass

import numpy as np

from windtunnel.comparison.scaling.envelope import Optima
from windtunnel.comparison.scaling.noise import HoldOut, Residuals, held_out
from windtunnel.comparison.scaling.projection import COARSE, Solution, Terms, fit
from windtunnel.comparison.scaling.runs import REACH, reachable
from windtunnel.statistics import Floats, Interval

LEVEL = 0.01


@dataclass(frozen=True)
class _Joint:
    """Both arms' best losses in one row: ln C [points], losses [1 + draws, points]; whose they are, which are last."""

    logs: Floats
    losses: Floats
    variant: np.ndarray
    last: np.ndarray

    def terms(self, centre: float, chosen: np.ndarray, tied: bool) -> Terms:
        x, second = self.logs[chosen] - centre, self.variant[chosen].astype(np.float64)
        return Terms(x, x, 1 - second, second, tied)

    def fit(self, centre: float, chosen: np.ndarray, tied: bool, losses: Floats) -> Solution:
        """Of rows of losses [rows points] at the chosen points; the first row to full precision."""
        terms, weights = self.terms(centre, chosen, tied), 1 / self.losses[0, chosen] ** 2
        first, rest = fit(terms, losses[:1], weights), fit(terms, losses[1:], weights, COARSE)
        return Solution(
            np.concatenate([first.exponents, rest.exponents]),
            np.concatenate([first.coefficients, rest.coefficients]),
            np.concatenate([first.squares, rest.squares]),
        )


@dataclass(frozen=True)
class Multiplier:
    """The variant's loss at C is the baseline's at m C; m above 1 favours the variant.

    p: of one exponent for both arms; separate: whether each has its own (p < 0.01). smallest, largest: the compute that
    both arms were trained at.
    """

    solution: Solution
    centre: float
    smallest: float
    largest: float
    p: float
    separate: bool
    held_out: HoldOut
    residuals: Residuals

    def at(self, compute: float) -> Interval:
        """m at some compute; refused beyond 4x the largest that both arms were trained at."""
        x = np.log(reachable(compute, self.largest)) - self.centre
        (_, base, variant), (first, second) = self.solution.coefficients.T, self.solution.exponents.T
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = (np.log(base) - np.log(variant) + second * x) / first - x
        logs = np.where(np.isnan(logs), np.inf, logs)
        found = self.residuals.interval(float(logs[0]), logs[1:])
        with np.errstate(over="ignore"):
            return Interval(*(float(np.exp(each)) for each in (found.value, found.low, found.high)))

    @property
    def crossing(self) -> Interval | None:
        """The compute at which the arms meet, where that lies between the smallest budget and 4x the largest."""
        if not self.separate:
            return None
        (_, base, variant), (first, second) = self.solution.coefficients.T, self.solution.exponents.T
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = self.centre + (np.log(base) - np.log(variant)) / (first - second)
        if not np.log(self.smallest) <= logs[0] <= np.log(REACH * self.largest):
            return None
        found = self.residuals.interval(float(logs[0]), np.where(np.isnan(logs[1:]), np.inf, logs[1:]))
        with np.errstate(over="ignore"):
            return Interval(*(float(np.exp(each)) for each in (found.value, found.low, found.high)))

    @property
    def reasons(self) -> list[str]:
        """Why m is no more than a description of these runs."""
        return [self.held_out.reason] if self.held_out.reason else []


def fit_multiplier(baseline: Optima, variant: Optima) -> Multiplier:
    """Both forms of the joint fit, the test between them, and both arms' largest budgets predicted from the others."""
    joint = _join(baseline, variant)
    every, centre = np.ones(joint.logs.size, dtype=bool), float(joint.logs.mean())
    shared = joint.fit(centre, every, True, joint.losses)
    own = joint.fit(centre, every, False, joint.losses)
    p = _p_value(joint, centre, shared, own)
    separate = p < LEVEL
    residuals = min(baseline.residuals, variant.residuals, key=lambda each: each.freedom)
    return Multiplier(
        own if separate else shared,
        centre,
        float(max(baseline.compute[0], variant.compute[0])),
        float(min(baseline.compute[-1], variant.compute[-1])),
        p,
        separate,
        _hold_out(joint, centre, not separate, residuals),
        residuals,
    )


def _join(baseline: Optima, variant: Optima) -> _Joint:
    arms = (baseline, variant)
    return _Joint(
        np.log(np.concatenate([arm.compute for arm in arms])),
        np.concatenate([arm.losses for arm in arms], axis=1),
        np.repeat([False, True], [arm.compute.size for arm in arms]),
        np.concatenate([np.arange(arm.compute.size) == arm.compute.size - 1 for arm in arms]),
    )


def _p_value(joint: _Joint, centre: float, shared: Solution, own: Solution) -> float:
    """Share of refits under one exponent whose gain from two is at least the one that was found."""
    every = np.ones(joint.logs.size, dtype=bool)
    expected = shared.predict(joint.terms(centre, every, True))[0]
    null = expected * joint.losses[1:] / joint.losses[0]
    gains = joint.fit(centre, every, True, null).squares - joint.fit(centre, every, False, null).squares
    return float((1 + np.sum(gains >= shared.squares[0] - own.squares[0])) / (1 + gains.size))


def _hold_out(joint: _Joint, centre: float, tied: bool, residuals: Residuals) -> HoldOut:
    rest = joint.fit(centre, ~joint.last, tied, joint.losses[:, ~joint.last])
    predicted = rest.predict(joint.terms(centre, joint.last, tied))
    noise = np.log(joint.losses[1:, joint.last] / joint.losses[0, joint.last])
    return held_out(float(np.exp(joint.logs.max())), joint.losses[0, joint.last], predicted, noise, residuals)
