"""Runs of one arm at many sizes and budgets, and what a set of them must be like before anything is fitted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windtunnel.errors import InputError
from windtunnel.statistics import Floats, sample

FEWEST_BUDGETS, FEWEST_SIZES, SMALLEST_SPAN = 4, 5, 16.0
REACH = 4.0  # how far beyond the largest compute a fit is read
_SAME_BUDGET = 1.25
_SAME_SIZE = 1.02
_WHOLE_STEPS = 1.02  # runs end at whole steps, so that budgets planned at 16x come out a little beside it


@dataclass(frozen=True)
class Runs:
    """Fully decayed runs of one arm, one entry a run.

    parameters: N, multiplied for each token, the head included; body: without embedding and head; tokens: D; compute:
    training FLOPs by the ledger; losses: held-out nats a token; budget: which budget a run is of, 0 the smallest.
    """

    parameters: Floats
    tokens: Floats
    compute: Floats
    losses: Floats
    body: Floats
    budget: NDArray[np.int64]

    @property
    def budgets(self) -> int:
        """How many budgets."""
        return int(self.budget.max()) + 1

    @property
    def budget_compute(self) -> Floats:
        """FLOPs of each budget: the geometric mean of its runs."""
        return np.array([np.exp(np.log(self.compute[self.budget == k]).mean()) for k in range(self.budgets)])

    @property
    def span(self) -> float:
        """The largest budget over the smallest."""
        return float(self.budget_compute[-1] / self.budget_compute[0])

    def sizes(self, budget: int) -> int:
        """Different sizes of one budget."""
        return int(_groups(self.parameters[self.budget == budget], _SAME_SIZE).max()) + 1

    def where(self, chosen: NDArray[np.bool_]) -> "Runs":
        """Some of the runs; budgets keep their numbers."""
        return Runs(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def ladder(
    label: str,
    *,
    parameters: ArrayLike,
    tokens: ArrayLike,
    compute: ArrayLike,
    losses: ArrayLike,
    body: ArrayLike | None = None,
) -> Runs:
    """Runs sorted into budgets: a budget is all runs within 1.25x of its cheapest. `label` names the arm in errors."""
    given = {"parameters": parameters, "tokens": tokens, "compute": compute, "losses": losses}
    given["body"] = parameters if body is None else body
    arrays = {name: sample(values, f"{label}: {name}") for name, values in given.items()}
    counts = {name: array.size for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{label}: every run has one entry in each of {', '.join(counts)}, not {counts}")
    for name, array in arrays.items():
        if not (array > 0).all():
            raise InputError(f"{label}: {name} must be above 0, got {array.min():g}")
    return Runs(**arrays, budget=_groups(arrays["compute"], _SAME_BUDGET))


def shortcomings(runs: Runs) -> list[str]:
    """Why these runs cannot carry a fit, each with the smallest change that would do; empty where they can."""
    found = []
    compute, missing = runs.budget_compute, FEWEST_BUDGETS - runs.budgets
    if missing > 0:
        found.append(
            f"{runs.budgets} budget{'s' * (runs.budgets != 1)} of compute, at least {FEWEST_BUDGETS} are needed: add "
            f"{missing} of {FEWEST_SIZES} sizes each"
        )
    if runs.span < SMALLEST_SPAN / _WHOLE_STEPS:
        found.append(
            f"budgets span {runs.span:.3g}x, at least {SMALLEST_SPAN:g}x is needed: add one of "
            f"{SMALLEST_SPAN * compute[0]:.2g} FLOPs or more"
        )
    for k, flops in enumerate(compute):
        sizes = runs.sizes(k)
        if sizes < FEWEST_SIZES:
            found.append(
                f"{sizes} size{'s' * (sizes != 1)} at {flops:.2g} FLOPs, at least {FEWEST_SIZES} are needed: add "
                f"{FEWEST_SIZES - sizes}"
            )
    return found


def require(runs: Runs, label: str) -> Runs:
    """The runs; raises `InputError` where they cannot carry a fit."""
    found = shortcomings(runs)
    if found:
        raise InputError(f"{label}: {'; '.join(found)}")
    return runs


def reachable(compute: float, largest: float) -> float:
    """The compute; raises `InputError` where that is more than 4x the largest of the runs."""
    if not 0 < compute <= REACH * largest * (1 + 1e-9):
        raise InputError(
            f"compute: {compute:.3g} FLOPs is {compute / largest:.3g}x the largest budget; a fit is read up to "
            f"{REACH:g}x, {REACH * largest:.3g}: train a budget of {compute / REACH:.3g} or ask for less"
        )
    return compute


def _groups(values: Floats, ratio: float) -> NDArray[np.int64]:
    """Numbers of groups, smallest first: a group begins where a value is `ratio` times the group's first."""
    groups = np.zeros(values.size, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    first, number = values[order[0]], 0
    for k in order:
        if values[k] > ratio * first:
            first, number = values[k], number + 1
        groups[k] = number
    return groups
