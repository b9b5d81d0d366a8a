"""L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3), by variable projection.

Relative least squares, or Huber's loss on log residuals; both from a grid over the exponents.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from windtunnel.comparison.scaling.noise import DRAWS, HoldOut, Residuals, held_out
from windtunnel.comparison.scaling.projection import COARSE, Solution, Terms, fit
from windtunnel.comparison.scaling.robust import fit_robust
from windtunnel.comparison.scaling.runs import Runs, reachable
from windtunnel.errors import InputError
from windtunnel.statistics import Floats, Interval

PARAMETERS = 5
NAMES = ("E", "A", "B", "alpha", "beta")


@dataclass(frozen=True)
class LossLaw:
    """The fitted law; `values` [1 + draws, 5] holds E, A, B, alpha, beta of the fit and of its refits."""

    values: Floats
    residuals: Residuals
    largest: float
    held_out: HoldOut
    robust: bool

    def interval(self, name: str) -> Interval:
        """One of E, A, B, alpha, beta."""
        column = self.values[:, NAMES.index(name)]
        return self.residuals.interval(float(column[0]), column[1:])

    @property
    def optimum_exponent(self) -> Interval:
        """a in N_opt ~ C^a at C = 6 N D: beta / (alpha + beta)."""
        shares = self.values[:, 4] / (self.values[:, 3] + self.values[:, 4])
        return self.residuals.interval(float(shares[0]), shares[1:])

    @property
    def reasons(self) -> list[str]:
        """Why the law is no more than a description of these runs; empty where it can carry a claim."""
        return [self.held_out.reason] if self.held_out.reason else []

    def predict(self, parameters: float, tokens: float, compute: float) -> Interval:
        """The loss of such a run; refused beyond 4x the largest compute of the runs."""
        reachable(compute, self.largest)
        predicted = evaluate(self.values, np.array([parameters]), np.array([tokens]))[:, 0]
        return self.residuals.interval(float(predicted[0]), predicted[1:])


def fit_loss_law(runs: Runs, generator: np.random.Generator, *, robust: bool = False, draws: int = DRAWS) -> LossLaw:
    """Fit, refit on residuals drawn again, and predict the largest budget from the others."""
    values, residuals = _fitted(runs, generator, robust, draws)
    last = runs.budget == runs.budgets - 1
    rest, kept = _fitted(runs.where(~last), generator, robust, draws)
    out = runs.where(last)
    predicted = evaluate(rest, out.parameters, out.tokens)
    noise = kept.draw((draws, out.losses.size), generator)
    test = held_out(float(runs.budget_compute[-1]), out.losses, predicted, noise, kept)
    return LossLaw(values, residuals, float(runs.budget_compute[-1]), test, robust)


def evaluate(values: Floats, parameters: Floats, tokens: Floats) -> Floats:
    """L(N, D) [rows points] of rows of E, A, B, alpha, beta."""
    e, a, b, alpha, beta = (values[:, k : k + 1] for k in range(PARAMETERS))
    return e + a * parameters**-alpha + b * tokens**-beta


def _fitted(runs: Runs, generator: np.random.Generator, robust: bool, draws: int) -> tuple[Floats, Residuals]:
    if runs.losses.size <= PARAMETERS:
        raise InputError(f"losses: {runs.losses.size} runs for {PARAMETERS} unknowns; at least {PARAMETERS + 1}")
    terms, natural = _terms(runs)
    first = fit(terms, runs.losses[None], 1 / runs.losses**2)
    if robust:
        first = fit_robust(terms, runs.losses[None])
    fitted = first.predict(terms)[0]
    residuals = Residuals.of(runs.losses, fitted, PARAMETERS)
    again = fitted * np.exp(residuals.draw((draws, fitted.size), generator))
    refits = fit(terms, again, 1 / runs.losses**2, COARSE)
    if robust:
        refits = fit_robust(terms, again, refits)
    return np.concatenate([natural(first), natural(refits)]), residuals


def _terms(runs: Runs) -> tuple[Terms, Callable[[Solution], Floats]]:
    """N and D over their geometric means, and the way back to the law's own units."""
    n, d = np.log(runs.parameters), np.log(runs.tokens)
    ones = np.ones(n.size)

    def natural(found: Solution) -> Floats:
        c, exponents = found.coefficients, found.exponents
        scaled = c[:, 1:] * np.exp(exponents * [n.mean(), d.mean()])
        return np.column_stack([c[:, 0], scaled, exponents])

    return Terms(n - n.mean(), d - d.mean(), ones, ones), natural
