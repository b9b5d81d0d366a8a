"""When runs solve a task: medians and a test that take account of those that did not within their budget."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

Steps = Sequence[int | None]  # None: not within the budget


def median_step(steps: Steps) -> float | None:
    """The median, runs that did not solve it counting as later than all others; None where it is one of them."""
    middle = float(np.median([math.inf if step is None else step for step in steps]))
    return middle if math.isfinite(middle) else None


def log_rank(first: Steps, second: Steps, budget: int) -> float | None:
    """p of a log-rank test that two arms solve a task equally soon, censored at the budget; None where none did.

    Two-sided; the variance is the hypergeometric one (Mantel 1966). With three runs an arm it is a rough guide.
    """
    if all(step is None for step in (*first, *second)):
        return None
    result = stats.logrank(_censored(first, budget), _censored(second, budget))
    p = float(result.pvalue)
    return p if math.isfinite(p) else 1.0  # no run was at risk in both arms when one solved it


def _censored(steps: Steps, budget: int) -> stats.CensoredData:
    """Solved at a step, or not within the budget."""
    return stats.CensoredData(
        uncensored=[step for step in steps if step is not None], right=[budget for step in steps if step is None]
    )
