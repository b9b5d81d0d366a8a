"""What attention moves and computes: FlashAttention's accounts of elements and of floating-point operations, per head.

d is the width of queries and keys, e that of values. Elements are counted between slow memory and chip, as in section
3.2 of Dao et al. 2022 (arXiv 2205.14135): Theta(N d + N²) for plain attention, Theta(N² d² / M) by tiles on a chip of
M elements. The constant is hidden there: at d = 64 and M = 25,600 the first version moves half of what plain attention
does, not a hundredth, for it reads and writes its result once a key tile.
"""

from typing import NamedTuple

from windtunnel.kernels.flash import Tiling, Version


class Moved(NamedTuple):
    """Elements loaded and stored."""

    loaded: int
    stored: int

    @property
    def total(self) -> int:
        return self.loaded + self.stored


def plain_forward(queries: int, keys: int, d: int, e: int) -> Moved:
    """Scores, weights and result by three kernels: the table of scores goes out and back twice."""
    table = queries * keys
    return Moved(queries * d + keys * d + table + table + keys * e, table + table + queries * e)


def forward(tiling: Tiling, version: Version, d: int, e: int) -> Moved:
    """What the forward pass moves in one head."""
    if version == 1:
        once, rows = tiling.keys * (d + e), _rows(tiling)
        return Moved(once + rows * (d + e + 2), rows * (e + 2))
    return Moved(tiling.queries * d + _columns(tiling) * (d + e), tiling.queries * (e + 1))


def backward(tiling: Tiling, version: Version, d: int, e: int) -> Moved:
    """What the backward pass moves in one head."""
    rows, once = _rows(tiling), tiling.keys * (d + e)
    if version == 1:
        return Moved(once + rows * (2 * d + 2 * e + 2), rows * d + once)
    drop = Moved(2 * tiling.queries * e, tiling.queries)
    return Moved(drop.loaded + once + rows * (2 * d + e + 2), drop.stored + rows * d + once)


def forward_operations(tiling: Tiling, d: int, e: int) -> int:
    """Matrix products: scores and weighted values of every pair in a tile that is met."""
    return 2 * _pairs(tiling) * (d + e)


def backward_operations(tiling: Tiling, d: int, e: int) -> int:
    """Five products a tile: scores again, dv, dP, dq and dk; 2.5 times the forward pass where d = e."""
    return 2 * _pairs(tiling) * (3 * d + 2 * e)


def _rows(tiling: Tiling) -> int:
    """Queries that are met, summed over key tiles: those from the first tile of queries that sees the first key."""
    starts = range(0, tiling.keys, tiling.columns)
    return sum(tiling.queries - min(_passed(tiling, start), tiling.queries) for start in starts)


def _passed(tiling: Tiling, key: int) -> int:
    """Queries before the first tile that sees a key."""
    first = max(0, key - (tiling.keys - tiling.queries)) if tiling.causal else 0
    return first - first % tiling.rows


def _columns(tiling: Tiling) -> int:
    """Keys that are met, summed over query tiles: whole tiles up to the last key that the last query sees."""
    met = 0
    for start in range(0, tiling.queries, tiling.rows):
        last = min(start + tiling.rows, tiling.queries) + tiling.keys - tiling.queries
        reach = max(0, last) if tiling.causal else tiling.keys
        met += min(tiling.keys, -(-reach // tiling.columns) * tiling.columns)
    return met


def _pairs(tiling: Tiling) -> int:
    """Area of the tiles that are met."""
    area = 0
    for start in range(0, tiling.keys, tiling.columns):
        width = min(tiling.columns, tiling.keys - start)
        area += width * max(0, tiling.queries - _passed(tiling, start))
    return area
