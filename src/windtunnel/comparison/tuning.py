"""The learning-rate sweep, the same for every arm: a grid, trials outward while the best is at an edge, half steps.

An engine asks `next_trials(done, rule)` until it is empty, then `choose(done, rule)`. Trials are compared by loss; a
diverged one has the loss of step 0, so it is a bad point and not a missing one. Tuning uses seed 0; its losses are
never results.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import InputError
from windtunnel.statistics import Floats


@dataclass(frozen=True)
class Trial:
    """One tuning run. `loss` is not used when the trial diverged."""

    lr: float
    loss: float
    diverged: bool = False


@dataclass(frozen=True)
class TuningRule:
    """The sweep of one arm: centre * ratio^k, at most `edge_cap` trials outward, half steps if `refine`."""

    centre: float
    initial_loss: float
    points: int = 5
    ratio: float = 2.0
    edge_cap: int = 4
    refine: bool = True

    def __post_init__(self) -> None:
        if not (self.centre > 0 and math.isfinite(self.centre)):
            raise InputError(f"learning-rate centre: {self.centre} must be positive")
        if self.points < 1 or self.ratio <= 1 or self.edge_cap < 0:
            raise InputError(
                f"tuning: points {self.points} (at least 1), ratio {self.ratio} (above 1), edge_cap {self.edge_cap}"
            )

    def grid(self) -> list[float]:
        """The learning rates of the grid, ascending."""
        low = -((self.points - 1) // 2)
        return [self.centre * self.ratio**k for k in range(low, low + self.points)]

    def score(self, trial: Trial) -> float:
        """A trial's loss; the initial loss if it diverged or ended above it."""
        if trial.diverged or not math.isfinite(trial.loss):
            return self.initial_loss
        return min(trial.loss, self.initial_loss)


@dataclass(frozen=True)
class Choice:
    """The learning rate of an arm's reported runs. `untuned`: the best is still at an edge of what was tried."""

    lr: float
    at_edge: bool
    untuned: bool
    best_trial: float
    best_loss: float
    trials: int
    curvature: float | None
    reason: str


@dataclass(frozen=True)
class Sensitivity:
    """Mean excess loss over log-uniform learning rates around the best; `octaves` of the window of 6 were tried."""

    value: float
    octaves: float


def next_trials(done: Sequence[Trial], rule: TuningRule) -> list[float]:
    """The learning rates to try next; empty when the sweep is over. Asks for an outward trial one at a time."""
    missing = [lr for lr in rule.grid() if not _tried(done, lr)]
    if missing:
        return missing
    outward = _outward(done, rule)
    if outward is not None:
        return [outward] if _extra(done, rule) < rule.edge_cap else []
    if not rule.refine or rule.points == 1:
        return []
    half = math.sqrt(rule.ratio)
    best = _best([trial for trial in done if _on_grid(trial.lr, rule)], rule).lr
    return [lr for lr in (best / half, best * half) if not _tried(done, lr)]


def choose(done: Sequence[Trial], rule: TuningRule) -> Choice:
    """The learning rate to use: the best trial, or the vertex of a parabola through its neighbours if refined.

    The parabola is in log2(lr) on the best grid point and its neighbours up to one step; the vertex is clipped to half
    a step around the best trial, and not used where the second difference is not positive.
    """
    if not done:
        raise InputError("tuning: no trial has been run")
    best = _best(done, rule)
    at_edge = rule.points > 1 and _outward(done, rule) is not None
    everything_diverged = all(trial.diverged for trial in done)
    curvature, vertex = _parabola(done, best, rule)
    lr, reason = best.lr, "best trial"
    if rule.refine and not at_edge and vertex is not None:
        half = math.sqrt(rule.ratio)
        lr, reason = float(np.clip(vertex, best.lr / half, best.lr * half)), "vertex of a parabola through the best"
    if at_edge:
        reason = f"best trial, the {'lowest' if best.lr < rule.centre else 'highest'} tried: untuned"
    if everything_diverged:
        reason = "every trial diverged: untuned"
    untuned = at_edge or everything_diverged
    return Choice(lr, at_edge, untuned, best.lr, rule.score(best), len(done), curvature, reason)


def lr_sensitivity(done: Sequence[Trial], rule: TuningRule, window: float = 8.0) -> Sensitivity:
    """Mean of (min(L, L_0) - best L) over log-uniform learning rates in [best / 8, 8 best], trapezoid in ln lr.

    After Wortsman et al. 2023. Only the part of the window that was tried counts; `octaves` says how much that is.
    """
    ordered = sorted(done, key=lambda trial: trial.lr)
    best = _best(ordered, rule)
    positions = np.log2([trial.lr for trial in ordered])
    excess = np.array([rule.score(trial) for trial in ordered]) - rule.score(best)
    centre, reach = math.log2(best.lr), math.log2(window)
    low, high = max(centre - reach, positions[0]), min(centre + reach, positions[-1])
    if high <= low:
        return Sensitivity(0.0, 0.0)
    inside = positions[(positions > low) & (positions < high)]
    knots = np.concatenate([[low], inside, [high]])
    area = float(np.trapezoid(np.interp(knots, positions, excess), knots))
    return Sensitivity(area / float(high - low), float(high - low))


def expected_best(losses: Sequence[float]) -> list[float]:
    """Expected best of k random trials among the m that were run, k = 1..m (Dodge et al. 2019, drawn with replacement).

    With losses ascending: E_k = sum_i l_i ((1 - (i - 1) / m)^k - (1 - i / m)^k).
    """
    ordered: Floats = np.sort(np.asarray(losses, dtype=np.float64))
    m = ordered.size
    tail = 1 - np.arange(m + 1) / m
    return [float(ordered @ (tail[:-1] ** k - tail[1:] ** k)) for k in range(1, m + 1)]


def granted_trials(variant_extras: Sequence[int]) -> int:
    """Trial parity: the baseline gets as many extra trials as the variant that spends most on its own setting."""
    return max(variant_extras, default=0)


def baseline_extras(count: int, weight_decay: float, beta2: float) -> list[tuple[str, float]]:
    """What the baseline tries with its extra trials: weight decay halved and doubled, then beta2, then further out."""
    ladder: list[tuple[str, float]] = []
    for step in range(1, count // 4 + 2):
        ladder += [("weight_decay", weight_decay * 2.0**-step), ("weight_decay", weight_decay * 2.0**step)]
        ladder += [("beta2", 1 - (1 - beta2) * 2.0**-step), ("beta2", 1 - min((1 - beta2) * 2.0**step, 0.5))]
    return ladder[:count]


def _best(done: Sequence[Trial], rule: TuningRule) -> Trial:
    return min(done, key=lambda trial: (rule.score(trial), trial.lr))


def _steps(lr: float, rule: TuningRule) -> float:
    return math.log(lr / rule.centre) / math.log(rule.ratio)


def _on_grid(lr: float, rule: TuningRule) -> bool:
    """A whole number of steps from the centre: a grid or outward trial, not a half step."""
    return abs(_steps(lr, rule) - round(_steps(lr, rule))) < 1e-6


def _tried(done: Sequence[Trial], lr: float) -> bool:
    return any(math.isclose(trial.lr, lr, rel_tol=1e-6) for trial in done)


def _extra(done: Sequence[Trial], rule: TuningRule) -> int:
    """Outward trials already used."""
    grid = rule.grid()
    inside = (grid[0] * (1 - 1e-6), grid[-1] * (1 + 1e-6))
    return sum(_on_grid(trial.lr, rule) and not inside[0] <= trial.lr <= inside[1] for trial in done)


def _outward(done: Sequence[Trial], rule: TuningRule) -> float | None:
    """The next learning rate beyond the edge at which the best trial lies, or None if it is not at an edge."""
    if rule.points == 1:
        return None
    best, rates = _best(done, rule).lr, [trial.lr for trial in done]
    if best == min(rates):
        return best / rule.ratio
    return best * rule.ratio if best == max(rates) else None


def _parabola(done: Sequence[Trial], best: Trial, rule: TuningRule) -> tuple[float | None, float | None]:
    """Curvature (nats per squared octave) and vertex of the least-squares parabola around the best trial.

    A parabola that is a line but for rounding has its vertex anywhere; it is brought to within a step of the best.
    """
    near = [
        trial
        for trial in done
        if abs(math.log(trial.lr / best.lr)) <= math.log(rule.ratio) + 1e-6 and not trial.diverged
    ]
    if len(near) < 3:
        return None, None
    positions = np.log2([trial.lr for trial in near]) - math.log2(best.lr)
    second, first, _ = np.polyfit(positions, [rule.score(trial) for trial in near], 2)
    if second <= 0:
        return float(second), None
    step = math.log2(rule.ratio)
    return float(second), best.lr * 2.0 ** float(np.clip(-first / (2 * second), -step, step))
