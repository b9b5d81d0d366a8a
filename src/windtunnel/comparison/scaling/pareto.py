"""Which points no other one beats in both cost and loss, and how sure that is (protocol, section 12)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from windtunnel.comparison.scaling.noise import DRAWS
from windtunnel.statistics import Floats

SAME_COST = 1.02  # whole steps move a budget by a percent or so
FAMILY = 0.5


@dataclass(frozen=True)
class Point:
    """The mean loss of some runs at one cost. deviation: relative s.d. of a run; freedom: how surely it is known."""

    arm: str
    cost: float
    loss: float
    runs: int
    deviation: float
    freedom: int
    name: str = ""

    @property
    def error(self) -> float:
        """Standard error of the loss."""
        return self.loss * self.deviation / math.sqrt(self.runs)

    @property
    def ends(self) -> tuple[float, float]:
        """95 % interval of the loss."""
        half = float(stats.t.ppf(0.975, self.freedom)) * self.error
        return self.loss - half, self.loss + half


def frontier(points: Sequence[Point], generator: np.random.Generator, draws: int = DRAWS) -> dict[str, Any]:
    """As JSON values: every point, the stair, and how often each arm is on it when losses are drawn again.

    A point is dominated where another costs no more and the interval of its loss lies wholly below. An arm is of the
    frontier's family when it is on the stair in more than half of the draws.
    """
    ordered = sorted(points, key=lambda point: (point.cost, point.loss))
    means = np.array([point.loss for point in ordered])
    errors = np.array([point.error for point in ordered])
    costs = np.array([point.cost for point in ordered])
    noise = np.concatenate([np.zeros((1, means.size)), generator.standard_normal((draws, means.size))])
    on = _on_stair(costs, means + noise * errors)
    arms = np.array([point.arm for point in ordered])
    shares = {
        arm: float(on[1:, arms == arm].any(axis=1).mean()) for arm in dict.fromkeys(point.arm for point in points)
    }
    return {
        "points": [
            {
                "arm": point.arm,
                "name": point.name,
                "cost": point.cost,
                "loss": point.loss,
                "ci95": list(point.ends),
                "runs": point.runs,
                "on_stair": bool(on[0, k]),
                "share": float(on[1:, k].mean()),
                "dominated": _dominated(point, ordered),
            }
            for k, point in enumerate(ordered)
        ],
        "draws": draws,
        "shares": shares,
        "family": [arm for arm, share in shares.items() if share > FAMILY],
    }


def _on_stair(costs: Floats, losses: Floats) -> np.ndarray:
    """Whether each point [draws points] has the lowest loss of all that cost no more."""
    reach = costs[None, :] <= SAME_COST * costs[:, None]  # of each point: those that cost no more
    best = np.stack([losses[:, row].min(axis=1) for row in reach], axis=1)
    return losses <= best


def _dominated(point: Point, others: Sequence[Point]) -> bool:
    return any(other.cost <= SAME_COST * point.cost and other.ends[1] < point.ends[0] for other in others)
