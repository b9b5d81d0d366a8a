"""Parameters of Griffin, Hawk and their baseline by formula: the paper prints widths and depths, not counts."""

from typing import NamedTuple


class Widths(NamedTuple):
    """A row of the paper's table 2: width, recurrent width, layers; heads are 128 wide, gates have 16 blocks."""

    width: int
    recurrent: int
    layers: int


WIDTHS = {
    "100m": Widths(768, 1024, 12),
    "200m": Widths(1024, 1536, 12),
    "400m": Widths(1536, 2048, 12),
    "1.3b": Widths(2048, 2560, 24),
    "3b": Widths(3072, 4096, 24),
    "7b": Widths(4096, 5632, 32),
    "14b": Widths(5120, 8192, 40),
}
# Millions, without the embedding.
BODIES = {
    **{
        ("griffin", size): count
        for size, count in zip(WIDTHS, (89.30, 163.0, 355.3, 1243, 2835, 6790, 13760), strict=False)
    },
    **{
        ("hawk", size): count
        for size, count in zip(WIDTHS, (93.80, 173.7, 374.8, 1304, 2996, 7176, 14810), strict=False)
    },
    **{
        ("mqa_transformer", size): count
        for size, count in zip(WIDTHS, (80.31, 141.7, 316.3, 1120, 2511, 5940), strict=False)
    },
}


def body(recipe: str, size: str) -> int:
    """Parameters without the embedding, all biases counted."""
    d, r, layers = WIDTHS[size]
    attention = 2 * d * d + d + 2 * d * 128
    recurrent = 2 * (d * r + r) + (r * d + d) + 5 * r + r + 2 * (r * r // 16 + r)
    mlp = 9 * d * d + 7 * d
    local = {"griffin": layers // 3, "hawk": 0, "mqa_transformer": layers}[recipe]
    return local * attention + (layers - local) * recurrent + layers * (mlp + 2 * d) + d
