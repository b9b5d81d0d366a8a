"""The loss of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3): Huber on log residuals, summed, from many starts.

Coefficients and the sum are kept as logarithms; the gradient is analytic. The published fit took the mean, whose scale
let L-BFGS stop early (Besiroglu et al. 2024, arXiv 2404.10102); here the sum is divided by delta squared.
"""

import numpy as np
from scipy import optimize
from scipy.special import logsumexp

from windtunnel.comparison.scaling.projection import HIGHEST, LOWEST, Solution, Terms, project
from windtunnel.statistics import Floats

DELTA = 1e-3
STARTS = 6  # for each exponent
_SMALLEST = 1e-9


def fit_robust(terms: Terms, values: Floats, starts: Solution | None = None) -> Solution:
    """The best of all starts for each row of values [rows runs]: given ones, one a row, or a grid of exponents."""
    found = []
    for k, row in enumerate(values):
        begin = _grid(terms, row) if starts is None else _begin(starts.exponents[k], starts.coefficients[k])[None]
        found.append(min((_descend(terms, row, one) for one in begin), key=lambda result: float(result.fun)))
    points = np.array([result.x for result in found])
    squares = np.array([float(result.fun) * DELTA**2 for result in found])
    return Solution(points[:, 3:], np.exp(points[:, :3]), squares)


def _grid(terms: Terms, row: Floats) -> Floats:
    """Exponents on a grid, each with its best coefficients by least squares."""
    ends = np.linspace(LOWEST, HIGHEST, STARTS)
    pairs = np.stack(np.meshgrid(ends, ends, indexing="ij"), axis=-1).reshape(-1, 2)
    coefficients, _ = project(terms, pairs[None], row[None], 1 / row**2)
    return np.array([_begin(pair, c) for pair, c in zip(pairs, coefficients[0], strict=True)])


def _begin(exponents: Floats, coefficients: Floats) -> Floats:
    return np.concatenate([np.log(np.maximum(coefficients, 1e-3 * coefficients.max())), exponents])


def _descend(terms: Terms, row: Floats, begin: Floats) -> optimize.OptimizeResult:
    bounds = [(np.log(_SMALLEST), 20.0)] * 3 + [(LOWEST, HIGHEST)] * 2
    options = {"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-6}
    return optimize.minimize(_huber, begin, (terms, np.log(row)), "L-BFGS-B", jac=True, bounds=bounds, options=options)


def _huber(point: Floats, terms: Terms, logs: Floats) -> tuple[float, Floats]:
    """Sum of Huber's loss over delta squared, and its gradient; point: ln c0, ln c1, ln c2, p, q."""
    parts = np.stack(
        [np.full(logs.size, point[0]), point[1] - point[3] * terms.first, point[2] - point[4] * terms.second]
    )
    total = logsumexp(parts, axis=0)
    shares = np.exp(parts - total)  # 3 runs
    scaled = (total - logs) / DELTA
    size = np.abs(scaled)
    value = np.where(size <= 1, 0.5 * scaled**2, size - 0.5).sum()
    pull = np.clip(scaled, -1, 1) / DELTA
    slopes = np.concatenate([shares @ pull, [-(shares[1] * terms.first) @ pull, -(shares[2] * terms.second) @ pull]])
    return float(value), slopes
