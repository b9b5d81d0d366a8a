"""L(C) = E + K C^-gamma through the best size of each budget, the best by a parabola in ln N (iso-FLOP profiles).

Below 1.5 decades of compute E and gamma cannot be told apart: the curve and their correlation are reported, not E.
"""

from dataclasses import dataclass

import numpy as np

from windtunnel.comparison.scaling.noise import DRAWS, HoldOut, Residuals, held_out
from windtunnel.comparison.scaling.projection import COARSE, Terms, fit
from windtunnel.comparison.scaling.runs import Runs, reachable
from windtunnel.statistics import Floats, Interval

DECADES = 1.5


@dataclass(frozen=True)
class Optima:
    """The best size of each budget: compute [budgets], losses and ln N [1 + draws, budgets], the measured first.

    inside: whether the parabola's lowest point lies between the sizes that were trained; where not, the end is taken.
    """

    compute: Floats
    losses: Floats
    log_parameters: Floats
    inside: tuple[bool, ...]
    residuals: Residuals

    def loss(self, budget: int) -> Interval:
        """Of the best size of one budget."""
        return self.residuals.interval(float(self.losses[0, budget]), self.losses[1:, budget])

    def parameters(self, budget: int) -> Interval:
        """The best size of one budget."""
        sizes = np.exp(self.log_parameters[:, budget])
        return self.residuals.interval(float(sizes[0]), sizes[1:])

    @property
    def exponent(self) -> Interval:
        """a in N_opt ~ C^a: the slope of ln N over ln C."""
        x = np.log(self.compute) - np.log(self.compute).mean()
        slopes = self.log_parameters @ x / (x @ x)
        return self.residuals.interval(float(slopes[0]), slopes[1:])


@dataclass(frozen=True)
class Envelope:
    """The fitted curve; `coefficients` [1 + draws, 2] are E and K at the geometric mean of the budgets' compute."""

    optima: Optima
    coefficients: Floats
    exponents: Floats
    held_out: HoldOut

    @property
    def gamma(self) -> Interval:
        """The exponent."""
        return self.optima.residuals.interval(float(self.exponents[0]), self.exponents[1:])

    @property
    def irreducible(self) -> Interval | None:
        """E, where at least 1.5 decades of compute tell it from gamma."""
        if np.log10(self.optima.compute[-1] / self.optima.compute[0]) < DECADES:
            return None
        return self.optima.residuals.interval(float(self.coefficients[0, 0]), self.coefficients[1:, 0])

    @property
    def correlation(self) -> float:
        """Of E and gamma over the refits."""
        spread = np.array([self.coefficients[1:, 0], self.exponents[1:]])
        return float(np.corrcoef(spread)[0, 1]) if (spread.std(axis=1) > 0).all() else 0.0

    @property
    def reasons(self) -> list[str]:
        """Why the curve is no more than a description of these runs."""
        found = [self.held_out.reason] if self.held_out.reason else []
        edges = [f"{c:.2g}" for c, inside in zip(self.optima.compute, self.optima.inside, strict=True) if not inside]
        if edges:
            found.append(f"the best size at {', '.join(edges)} FLOPs is the end of those tried: add a size beyond it")
        return found

    def predict(self, compute: float) -> Interval:
        """The best loss at some compute; refused beyond 4x the largest budget."""
        reachable(compute, float(self.optima.compute[-1]))
        scaled = np.log(compute) - np.log(self.optima.compute).mean()
        values = self.coefficients[:, 0] + self.coefficients[:, 1] * np.exp(-self.exponents * scaled)
        return self.optima.residuals.interval(float(values[0]), values[1:])


def find_optima(runs: Runs, generator: np.random.Generator, *, draws: int = DRAWS, body: bool = False) -> Optima:
    """Parabolas in ln N, on the losses and on residuals drawn again; `body` counts N without embedding and head."""
    chosen = [np.flatnonzero(runs.budget == k) for k in range(runs.budgets)]
    logs = np.log(runs.body if body else runs.parameters)
    fitted = np.empty_like(runs.losses)
    designs = []
    for rows in chosen:
        x = logs[rows] - logs[rows].mean()
        designs.append(np.stack([np.ones_like(x), x, x**2], axis=1))  # runs 3
        fitted[rows] = designs[-1] @ np.linalg.lstsq(designs[-1], runs.losses[rows], rcond=None)[0]
    residuals = Residuals.of(runs.losses, fitted, 3 * runs.budgets)
    again = fitted * np.exp(residuals.draw((draws, fitted.size), generator))
    values = np.concatenate([runs.losses[None], again])
    found = [_lowest(design, values[:, rows]) for design, rows in zip(designs, chosen, strict=True)]
    return Optima(
        runs.budget_compute,
        np.stack([loss for loss, _, _ in found], axis=1),
        np.stack([place + logs[rows].mean() for (_, place, _), rows in zip(found, chosen, strict=True)], axis=1),
        tuple(inside for _, _, inside in found),
        residuals,
    )


def fit_envelope(runs: Runs, generator: np.random.Generator, *, draws: int = DRAWS) -> Envelope:
    """Best sizes, the curve through them, and the largest budget predicted from the others."""
    optima = find_optima(runs, generator, draws=draws)
    logs = np.log(optima.compute)
    coefficients, exponents = curve(logs - logs.mean(), optima.losses)
    shift = logs - logs[:-1].mean()
    rest, powers = curve(shift[:-1], optima.losses[:, :-1])
    predicted = rest[:, 0] + rest[:, 1] * np.exp(-powers * shift[-1])
    noise = np.log(optima.losses[1:, -1:] / optima.losses[0, -1])
    test = held_out(float(optima.compute[-1]), optima.losses[0, -1:], predicted[:, None], noise, optima.residuals)
    return Envelope(optima, coefficients, exponents, test)


def curve(logs: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """E and K [rows 2], gamma [rows] of losses [rows budgets] at centred ln C; the first row to full precision."""
    absent = np.zeros(logs.size)
    terms = Terms(logs, absent, np.ones(logs.size), absent)
    weights = 1 / losses[0] ** 2
    found = [fit(terms, losses[:1], weights), fit(terms, losses[1:], weights, COARSE)]
    return (
        np.concatenate([one.coefficients[:, :2] for one in found]),
        np.concatenate([one.exponents[:, 0] for one in found]),
    )


def _lowest(design: Floats, losses: Floats) -> tuple[Floats, Floats, bool]:
    """Lowest loss and its place on each row's parabola, held within the sizes; whether the first row's is inside."""
    c0, c1, c2 = np.linalg.pinv(design) @ losses.T  # each rows
    left, right = design[:, 1].min(), design[:, 1].max()
    vertex = np.where(c2 > 0, -c1 / (2 * np.where(c2 > 0, c2, 1.0)), left)
    places = np.stack([np.full_like(vertex, left), np.full_like(vertex, right), np.clip(vertex, left, right)])
    values = c0 + c1 * places + c2 * places**2  # 3 rows
    best = values.argmin(axis=0)
    rows = np.arange(best.size)
    return values[best, rows], places[best, rows], bool(c2[0] > 0 and left < vertex[0] < right)
