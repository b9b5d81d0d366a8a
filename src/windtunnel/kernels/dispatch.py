"""Tokens to experts and back: rows are sorted by expert, and what the experts give is mixed by the gates.

    y[n] = Σ_c gates[n, c] expert_{chosen[n, c]}(x[n]),   chosen < 0: that choice is dropped and adds nothing

`gather` brings the rows into the order of their experts, `combine` brings the results back. A permutation's gradient is
its inverse, so neither direction adds into rows in an order that could change.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.routing import by_hand


class Plan(NamedTuple):
    """Who goes where. Pairs are (token, choice), numbered n c; m of them are kept and sorted by expert.

    pairs: [m] the pair at each place. places: [n c] the place of each pair, any where it is dropped. kept: [n c], None
    where nothing is dropped. ends: [e] int32, where each expert's places end.
    """

    pairs: Tensor
    places: Tensor
    kept: Tensor | None
    ends: Tensor

    @property
    def rows(self) -> Tensor:
        """[m] the token at each place."""
        return self.pairs // self.places.shape[1]


def dispatch(chosen: Tensor, experts: int, drops: bool = False) -> Plan:
    """The plan for chosen [n c] experts; within an expert in the order of the tokens. drops: whether some are < 0."""
    key = torch.where(chosen < 0, experts, chosen).flatten() if drops else chosen.flatten()
    order = torch.argsort(key, stable=True)
    ends = torch.searchsorted(key[order], torch.arange(experts, device=key.device), right=True, out_int32=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    places = places.view_as(chosen)
    if not drops:
        return Plan(order, places, None, ends)
    kept = chosen >= 0
    return Plan(order[: int(ends[-1])], torch.where(kept, places, 0), kept, ends)


def gather_reference(x: Tensor, plan: Plan) -> Tensor:
    """The rows in their experts' order, in plain torch."""
    return x[plan.rows]


def combine_reference(out: Tensor, gates: Tensor, plan: Plan) -> Tensor:
    """Each result times its gate, added to its token, in plain torch."""
    weighted = out * gates.flatten()[plan.pairs, None]
    mixed = weighted.new_zeros(len(gates), out.shape[1])
    return mixed.index_add(0, plan.rows, weighted).to(out.dtype)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        return x.index_select(0, plan.rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, None]:
        return _sum_choices(dout, None if ctx.plan.kept is None else ctx.plan.kept.to(dout.dtype), ctx.plan), None


class _Combine(torch.autograd.Function):
    """dout = gate dy and dgate = out . dy, both at the places, where dy is brought once."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, gates: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(out, gates)
        ctx.plan = plan
        weights = gates if plan.kept is None else gates * plan.kept
        return _sum_choices(out, weights.to(out.dtype), plan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        out, gates = ctx.saved_tensors
        plan: Plan = ctx.plan
        at_places = dy.index_select(0, plan.rows)  # m d
        slopes = torch.linalg.vecdot(at_places, out).to(gates.dtype)
        dgates = torch.zeros_like(gates).flatten().index_copy_(0, plan.pairs, slopes).view_as(gates)
        weights = gates.flatten().index_select(0, plan.pairs).to(dy.dtype)
        return at_places.mul_(weights[:, None]), dgates, None


def _sum_choices(values: Tensor, weights: Tensor | None, plan: Plan) -> Tensor:
    """Σ_c weights[n, c] values[places[n, c]]: n d."""
    if not len(values):  # every pair was dropped
        return values.new_zeros(len(plan.places), values.shape[1])
    total: Tensor | None = None
    for choice in range(plan.places.shape[1]):
        found = values.index_select(0, plan.places[:, choice])
        if weights is None:
            total = found if total is None else total.add_(found)
        elif total is None:
            total = found.mul_(weights[:, :1])
        else:
            total.addcmul_(found, weights[:, choice : choice + 1])
    assert total is not None
    return total


def gather(x: Tensor, plan: Plan) -> Tensor:
    """Rows [m d] of x [n d] in the order of their experts."""
    if not by_hand(x):
        return gather_reference(x, plan)
    return _Gather.apply(x, plan)  # type: ignore[no-any-return, no-untyped-call]


def combine(out: Tensor, gates: Tensor, plan: Plan) -> Tensor:
    """y [n d] of the experts' results out [m d] and gates [n c]; in the dtype of `out`."""
    if not by_hand(out):
        return combine_reference(out, gates, plan)
    return _Combine.apply(out, gates, plan)  # type: ignore[no-any-return, no-untyped-call]
