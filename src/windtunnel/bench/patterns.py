"""Attention in sparse patterns against full causal attention, forward and backward."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from windtunnel.bench.turns import Say, figures, race
from windtunnel.bench.window import FULL, SHAPE, Shape
from windtunnel.report.tables import Table

if TYPE_CHECKING:
    from windtunnel.mixers import Pattern


def run(rounds: int, threads: int, say: Say, shape: Shape = SHAPE) -> dict[str, Any]:
    """Seconds of each pattern, its time relative to full causal attention, and the share of the pairs that it has."""
    from windtunnel.mixers.patterns import pairs

    found = race("patterns", _contestants(shape), FULL, shape=shape, rounds=rounds, threads=threads, say=say)
    everything = shape.length * (shape.length + 1) // 2
    shares = {name: pairs(pattern, shape.length) / everything for name, pattern in _patterns(shape).items()}
    rows = [{**row, "pairs": shares.get(row["label"], 1.0)} for row in found["contestants"]]
    return {**found, "contestants": rows}


def _patterns(shape: Shape) -> dict[str, "Pattern"]:
    from windtunnel.mixers import BigBird, Fixed, Sliding, Strided

    window, stride = shape.window, max(2, round(shape.length**0.5))
    block = max(1, shape.length // 64)
    return {
        f"window {window}, every third key": Sliding(window=window, dilation=3),
        f"window {window} and 4 global tokens": Sliding(window=window, prefix=4),
        f"strided by {stride}": Strided(stride=stride),
        f"fixed blocks of {stride}, {max(1, stride // 8)} columns": Fixed(stride=stride, columns=max(1, stride // 8)),
        f"BigBird in blocks of {block}": BigBird(block=block),
    }


def _contestants(shape: Shape) -> dict[str, Callable[[], object]]:
    import torch

    from windtunnel.kernels import attention, top_k_attention
    from windtunnel.layer import Context
    from windtunnel.mixers import SparseAttention

    draw, scale = torch.Generator().manual_seed(0), shape.head_width**-0.5
    sizes = (1, shape.heads, shape.length, shape.head_width)
    q, k, v, weights = (torch.randn(sizes, generator=draw) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]

    def passes(kernel: Callable[..., Any]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(kernel(*inputs), inputs, weights)

    def patterned(pattern: "Pattern") -> Callable[..., Any]:
        layer = SparseAttention(heads=shape.heads, patterns=(pattern,)).build(shape.heads * shape.head_width)
        return lambda q, k, v: layer.whole(q, k, v, Context(torch.arange(shape.length)))

    best = max(1, shape.length // 64)
    return {
        FULL: passes(lambda q, k, v: attention(q, k, v, scale, causal=True)),
        **{name: passes(patterned(pattern)) for name, pattern in _patterns(shape).items()},
        f"the {best} largest scores": passes(lambda q, k, v: top_k_attention(q, k, v, scale, best)),
    }


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    shape = Shape(**result["settings"]["shape"])
    rows = [(*figures(row), f"{row['pairs']:.1%}") for row in result["contestants"]]
    return Table(
        caption=f"{shape.length} tokens, {shape.heads} heads of {shape.head_width}, forward and backward",
        columns=("contestant", "ms (median)", "time over full attention's [95 %]", "pairs"),
        rows=rows,
        numeric=(1, 2, 3),
        note="the largest scores are found among all, so that what they save is memory",
    )
