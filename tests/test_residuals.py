"""Wirings of a block that no recipe has by itself."""

import torch

from windtunnel.layer import Context
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, BlockLayer
from windtunnel.norms import LayerNorm
from windtunnel.residuals import Parallel


def block(own_norm: bool) -> BlockLayer:
    """A parallel block in float64 with random weights."""
    residual = Parallel(norm=LayerNorm(), own_norm=own_norm)
    layer = Block(residual=residual, mixer=Attention(heads=2), mlp=Dense(hidden=20)).build(8).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


@torch.no_grad()
def test_a_norm_for_each_branch_is_the_shared_one_where_both_are_equal() -> None:
    apart, shared = block(own_norm=True), block(own_norm=False)
    weights = apart.state_dict()
    shared.load_state_dict({name: tensor for name, tensor in weights.items() if "mlp_norm" not in name})
    x, context = torch.randn(2, 5, 8, dtype=torch.float64), Context(torch.arange(5))
    assert (apart(x, context).hidden - shared(x, context).hidden).abs().max() > 0.1
    for kind in ("weight", "bias"):
        weights[f"residual.mlp_norm.{kind}"].copy_(weights[f"residual.norm.{kind}"])
    assert torch.equal(apart(x, context).hidden, shared(x, context).hidden)


def test_a_second_norm_is_counted() -> None:
    apart, shared = (sum(cost.elementwise for cost in block(own).residual.costs(9)) for own in (True, False))
    assert apart == 2 * shared
