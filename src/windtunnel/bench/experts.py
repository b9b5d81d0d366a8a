"""Dropless experts against a dense MLP of equal active operations, forward and backward."""

import dataclasses
from collections.abc import Callable
from typing import Any

from windtunnel.bench.turns import Say, figures, race
from windtunnel.report.tables import Table

DENSE = "dense MLP"


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the problem; hidden is that of the dense MLP."""

    tokens: int = 2048
    width: int = 256
    hidden: int = 688
    experts: int = 8
    choices: int = 2


def run(rounds: int, threads: int, say: Say, shape: Shape = Shape()) -> dict[str, Any]:
    """Seconds of forward and backward passes, and what each costs relative to the dense MLP."""
    return race("experts", _contestants(shape), DENSE, shape=shape, rounds=rounds, threads=threads, say=say)


def _contestants(shape: Shape) -> dict[str, Callable[[], object]]:
    import torch

    from windtunnel.init import FanIn, initialize
    from windtunnel.layer import Context
    from windtunnel.mlps import MLP, Experts, Gated, Switch, TopK

    draw = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(1, shape.tokens, shape.width, generator=draw) for _ in range(2))
    context = Context(torch.arange(shape.tokens), seed=0)

    def passes(mlp: MLP) -> Callable[[], object]:
        layer = mlp.build(shape.width)
        initialize(layer, FanIn(), seed=0, layers=1)
        inputs = [x.requires_grad_(), *layer.parameters()]

        def both() -> object:
            out = layer(x, context)
            total = (out.hidden * weights).sum() + sum(out.losses.values())
            return torch.autograd.grad(total, inputs)

        return both

    top = TopK(choices=shape.choices)
    return {
        DENSE: passes(Gated(hidden=shape.hidden)),
        f"top-{shape.choices} of {shape.experts} experts": passes(
            Experts(experts=shape.experts, hidden=shape.hidden // shape.choices, router=top)
        ),
        f"one of {shape.experts} experts, with capacity": passes(
            Experts(experts=shape.experts, hidden=shape.hidden, router=Switch())
        ),
    }


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    shape = Shape(**result["settings"]["shape"])
    rows = [figures(row) for row in result["contestants"]]
    return Table(
        caption=f"{shape.tokens} tokens of width {shape.width}, forward and backward",
        columns=("contestant", "ms (median)", "time over the dense MLP's [95 %]"),
        rows=rows,
        numeric=(1, 2),
        note="every contestant multiplies as much for a token, but for the router and for what capacity drops",
    )
