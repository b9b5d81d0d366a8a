"""An arm's learning rate at any size and length, by a rule that is fitted to a few sweeps.

ln(rate / recipe's) = a + b ln(N / N0) + c ln(D / D0), where the recipe's rate is centre * sqrt(64 / width).
Least squares, with b and c held towards 0 as by a normal prior: a few sweeps whose minima are known to a third of an
octave or so say little of slopes, and the rule is read 16x beyond most of them. The check at the largest budget joins
the fit with twice the weight of a sweep, for most of the compute is spent near it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import InputError

NOISE = 0.25  # s.d. of ln(rate) of one sweep
PRIOR = 0.25  # s.d. of the slopes


@dataclass(frozen=True)
class Point:
    """The best rate of one sweep, over the recipe's own for that width. parameters: N with the head; tokens: D.

    weight: how many times nearer the rule has to come to it than to a sweep of weight 1.
    """

    parameters: float
    tokens: float
    factor: float
    weight: float = 1.0


@dataclass(frozen=True)
class RateRule:
    """The fitted rule: `factor` at (N0, D0) and the exponents of N and D."""

    factor: float
    by_parameters: float
    by_tokens: float
    parameters: float
    tokens: float

    def at(self, parameters: float, tokens: float) -> float:
        """What the recipe's rate is to be multiplied by."""
        n, d = math.log(parameters / self.parameters), math.log(tokens / self.tokens)
        return self.factor * math.exp(self.by_parameters * n + self.by_tokens * d)


def fit_rule(points: Sequence[Point]) -> RateRule:
    """The rule through these points. With one point it is the recipe's rule times a factor."""
    if not points:
        raise InputError("learning-rate rule: no sweep has ended")
    n0, d0 = (
        math.exp(np.mean([math.log(getattr(point, name)) for point in points])) for name in ("parameters", "tokens")
    )
    weights = np.array([point.weight for point in points])
    rows = [[1.0, math.log(point.parameters / n0), math.log(point.tokens / d0)] for point in points]
    target = weights * np.log([point.factor for point in points])
    strength = NOISE / PRIOR
    design = np.array([*(weights[:, None] * rows), [0.0, strength, 0.0], [0.0, 0.0, strength]])
    a, b, c = np.linalg.lstsq(design, np.array([*target, 0.0, 0.0]), rcond=None)[0]
    return RateRule(math.exp(a), float(b), float(c), n0, d0)
