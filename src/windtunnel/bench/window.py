"""Attention in a sliding window against full causal attention, forward and backward, on one thread or more."""

import dataclasses
from collections.abc import Callable
from typing import Any

from windtunnel.bench.turns import Say, figures, race
from windtunnel.report.tables import Table

FULL = "full causal attention"


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the problem: one sequence."""

    length: int = 4096
    window: int = 256
    heads: int = 4
    head_width: int = 64


SHAPE = Shape()


def run(rounds: int, threads: int, say: Say, shape: Shape = SHAPE) -> dict[str, Any]:
    """Seconds of forward and backward passes, and what each costs relative to full causal attention."""
    return race("window", _contestants(shape), FULL, shape=shape, rounds=rounds, threads=threads, say=say)


def _contestants(shape: Shape) -> dict[str, Callable[[], object]]:
    from windtunnel.kernels import attention, banded_attention

    scale, window = shape.head_width**-0.5, shape.window

    def passes(kernel: Callable[..., Any], length: int) -> Callable[[], object]:
        import torch

        draw = torch.Generator().manual_seed(0)
        sizes = (1, shape.heads, length, shape.head_width)
        q, k, v, weights = (torch.randn(sizes, generator=draw) for _ in range(4))
        inputs = [x.requires_grad_() for x in (q, k, v)]
        return lambda: torch.autograd.grad(kernel(*inputs), inputs, weights)

    def masked(q: Any, k: Any, v: Any) -> Any:
        import torch

        distance = torch.arange(shape.length)[:, None] - torch.arange(shape.length)
        return attention(q, k, v, scale, (distance >= 0) & (distance < window), causal=True)

    def banded(q: Any, k: Any, v: Any) -> Any:
        return banded_attention(q, k, v, scale, window)

    return {
        FULL: passes(lambda q, k, v: attention(q, k, v, scale, causal=True), shape.length),
        f"window {window}, a mask over all keys": passes(masked, shape.length),
        f"window {window}, by blocks": passes(banded, shape.length),
        f"window {window}, by blocks, half the length": passes(banded, shape.length // 2),
    }


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    shape = Shape(**result["settings"]["shape"])
    rows = [figures(row) for row in result["contestants"]]
    return Table(
        caption=f"{shape.length} tokens, {shape.heads} heads of {shape.head_width}, forward and backward",
        columns=("contestant", "ms (median)", "time over full attention's [95 %]"),
        rows=rows,
        numeric=(1, 2),
        note="the cost of a window grows with the length, that of full attention with its square",
    )
