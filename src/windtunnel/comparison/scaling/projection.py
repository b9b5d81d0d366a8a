"""Variable projection: y = c0 + c1 u^-p + c2 v^-q with c >= 0, for many rows of y at once.

For fixed (p, q) the best coefficients are a non-negative least squares of three columns, solved exactly by trying every
set of columns; what is left is a search over two exponents: a grid over their bounds, then windows that halve. The
second term may be absent, or share the first one's exponent.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.statistics import Floats

LOWEST, HIGHEST = 0.05, 1.2
GRID = 24
FINE, COARSE = 18, 9
_SINGULAR = 1e-12
_CHUNK = 250
_WINDOW = np.linspace(-1.5, 1.5, 7)
_SETS = [chosen for size in (1, 2, 3) for chosen in itertools.combinations(range(3), size)]


@dataclass(frozen=True)
class Terms:
    """What is raised to -p and to -q: ln u and ln v [runs], centred on 0; where a term is absent, `present` is 0."""

    first: Floats
    second: Floats
    first_present: Floats
    second_present: Floats
    tied: bool = False

    def columns(self, exponents: Floats) -> tuple[Floats, Floats]:
        """Both terms at exponents [... 2], as [... runs]."""
        first = self.first_present * np.exp(-exponents[..., :1] * self.first)
        second = self.second_present * np.exp(-exponents[..., 1:] * self.second)
        return first, second


@dataclass(frozen=True)
class Solution:
    """The best fit of each row: exponents [rows 2], coefficients [rows 3], weighted sum of squares [rows]."""

    exponents: Floats
    coefficients: Floats
    squares: Floats

    def predict(self, terms: Terms) -> Floats:
        """Fitted values [rows runs], at these or other places."""
        first, second = terms.columns(self.exponents)
        c = self.coefficients
        return c[:, :1] + c[:, 1:2] * first + c[:, 2:] * second


def fit(terms: Terms, values: Floats, weights: Floats, rounds: int = FINE) -> Solution:
    """Least squares with weights [runs] for each row of values [rows runs]; `rounds` halvings of the window."""
    parts = [_fit(terms, values[k : k + _CHUNK], weights, rounds) for k in range(0, len(values), _CHUNK)]
    return Solution(
        np.concatenate([part.exponents for part in parts]),
        np.concatenate([part.coefficients for part in parts]),
        np.concatenate([part.squares for part in parts]),
    )


def project(terms: Terms, exponents: Floats, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Coefficients [rows k 3] and sums of squares [rows k] at exponents [rows or 1, k, 2]."""
    first, second = terms.columns(exponents)
    columns = (np.ones_like(first), first, second)
    weighted = (weights * values)[:, :, None]  # rows runs 1
    right = [(column @ weighted)[..., 0] for column in columns]  # rows k
    gram = [[(one * other) @ weights for other in columns] for one in columns]
    total = np.einsum("dr,dr,r->d", values, values, weights)[:, None]
    best = np.zeros(right[0].shape)  # no column at all
    coefficients = np.zeros((*best.shape, 3))
    for chosen in _SETS:
        found, feasible = _solve(gram, right, chosen)
        explained = np.where(feasible, sum(c * right[k] for c, k in zip(found, chosen, strict=True)), -np.inf)
        better = explained > best
        best = np.where(better, explained, best)
        coefficients[better] = 0.0
        for c, k in zip(found, chosen, strict=True):
            coefficients[..., k] = np.where(better, c, coefficients[..., k])
    return coefficients, np.maximum(total - best, 0.0)


def _fit(terms: Terms, values: Floats, weights: Floats, rounds: int) -> Solution:
    grid = np.linspace(LOWEST, HIGHEST, GRID)
    spacing = grid[1] - grid[0]
    pairs = _pairs(grid, grid, terms)[None]
    coefficients, squares = project(terms, pairs, values, weights)
    rows = np.arange(len(values))
    best = squares.argmin(axis=1)
    centre = pairs[0, best]  # rows 2
    window = _pairs(_WINDOW, _WINDOW, terms)
    for _ in range(rounds):
        around = np.clip(centre[:, None, :] + spacing * window, LOWEST, HIGHEST)
        coefficients, squares = project(terms, around, values, weights)
        best = squares.argmin(axis=1)
        centre = around[rows, best]
        spacing /= 2
    return Solution(centre, coefficients[rows, best], squares[rows, best])


def _pairs(first: Floats, second: Floats, terms: Terms) -> Floats:
    """Exponents to try, [k 2]; one only where they are tied or the second term is nowhere."""
    if terms.tied or not terms.second_present.any():
        return np.stack([first, first], axis=-1)
    return np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)


def _solve(
    gram: Sequence[Sequence[Floats]], right: Sequence[Floats], chosen: tuple[int, ...]
) -> tuple[list[Floats], Floats]:
    """Coefficients of the chosen columns by Cramer's rule, and where they exist and are none below zero."""
    matrix = [[gram[i][j] for j in chosen] for i in chosen]
    determinant = _determinant(matrix)
    scale = np.prod([matrix[k][k] for k in range(len(chosen))], axis=0)
    regular = determinant > _SINGULAR * scale
    safe = np.where(regular, determinant, 1.0)
    found = []
    for k in range(len(chosen)):
        replaced = [
            [right[chosen[i]] if j == k else matrix[i][j] for j in range(len(chosen))] for i in range(len(chosen))
        ]
        found.append(_determinant(replaced) / safe)
    return found, regular & np.all([c >= 0 for c in found], axis=0)


def _determinant(matrix: Sequence[Sequence[Floats]]) -> Floats:
    if len(matrix) == 1:
        return matrix[0][0]
    if len(matrix) == 2:
        return matrix[0][0] * matrix[1][1] - matrix[0][1] * matrix[1][0]
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
