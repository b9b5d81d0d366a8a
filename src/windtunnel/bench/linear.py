"""Linear attention against full causal attention, forward and backward: where the lengths cross."""

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
    heads: int = 4
    head_width: int = 32


def run(rounds: int, threads: int, say: Say, shape: Shape = Shape()) -> dict[str, Any]:
    """Seconds of forward and backward passes, and what each costs relative to full causal attention."""
    return race("linear", _contestants(shape), FULL, shape=shape, rounds=rounds, threads=threads, say=say)


def _contestants(shape: Shape) -> dict[str, Callable[[], object]]:
    from windtunnel.kernels import attention, causal_efficient_attention, linear_attention

    def passes(kernel: Callable[..., Any], length: int) -> Callable[[], object]:
        import torch

        draw = torch.Generator().manual_seed(0)
        sizes = (1, shape.heads, length, shape.head_width)
        q, k, v, weights = (torch.randn(sizes, generator=draw) for _ in range(4))
        inputs = [x.requires_grad_() for x in (q, k, v)]
        return lambda: torch.autograd.grad(kernel(*inputs), inputs, weights)

    def full(q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, shape.head_width**-0.5, causal=True)

    def means(q: Any, k: Any, v: Any) -> Any:
        return causal_efficient_attention(q, k, v)[0]

    def sums(q: Any, k: Any, v: Any) -> Any:
        return linear_attention(q, k, v)[0]

    return {
        FULL: passes(full, shape.length),
        "sums of the past (elu, relu, scaling)": passes(sums, shape.length),
        "means of the past (softmax, exp)": passes(means, shape.length),
        "means of the past, half the length": passes(means, shape.length // 2),
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
        note="the cost of linear attention grows with the length, that of full attention with its square",
    )
