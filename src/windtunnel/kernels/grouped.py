"""One linear map for each group of rows: the product at the heart of a mixture of experts.

    y[r] = weight[g] x[r]   for the rows r of group g, which lie together: ends[g-1] <= r < ends[g]

Under autocast the products are taken in its dtype.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from windtunnel.kernels.routing import autocast, by_hand

_ALIGNED = 8  # torch's grouped product on CUDA wants rows of whole 16 bytes in bfloat16


def grouped_linear_reference(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """The equation, group by group in plain torch."""
    parts = x.tensor_split(ends[:-1].cpu().long())
    return torch.cat([F.linear(part, each) for part, each in zip(parts, weight, strict=True)])


class _GroupedLinear(torch.autograd.Function):
    """dx = dy W and dW = dyᵀ x of each group, written straight into their places.

    On a CPU the products of single groups are as fast as a fused one, and a cost counter sees them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = _groups(ends)
        y = x.new_empty(x.shape[0], weight.shape[1])
        for group, rows in ctx.groups:
            torch.mm(x[rows], weight[group].T, out=y[rows])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dweight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for group, rows in ctx.groups:
            if dx is not None:
                torch.mm(dy[rows], weight[group], out=dx[rows])
            if dweight is not None:
                torch.mm(dy[rows].T, x[rows], out=dweight[group])
        if dweight is not None:
            filled = {group for group, _ in ctx.groups}
            for group in set(range(len(dweight))) - filled:
                dweight[group].zero_()
        return dx, dweight, None


class _RealStrides(torch.autograd.Function):
    """The identity, whose gradient is contiguous: the grouped product refuses the expanded gradient of a sum."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy.contiguous()


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """y [m o] of rows x [m i], sorted by group, under weight [g o i]; ends [g] int32: where each group ends.

    ends[-1] is m. A group may be empty. bfloat16 on CUDA goes through torch's grouped product.
    """
    x, weight = autocast(x), autocast(weight)
    if by_hand(x):
        return _GroupedLinear.apply(x, weight, ends)  # type: ignore[no-any-return, no-untyped-call]
    if x.dtype == torch.bfloat16 and not any(size % _ALIGNED for size in weight.shape[1:]):
        return fused_grouped_linear(x, weight, ends)
    return grouped_linear_reference(x, weight, ends)


def fused_grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """The same by `torch.nn.functional.grouped_mm`, which never waits for the sizes of the groups."""
    product = F.grouped_mm(x, weight.transpose(-2, -1), offs=ends)
    return _RealStrides.apply(product)  # type: ignore[no-any-return, no-untyped-call]


def _groups(ends: Tensor) -> list[tuple[int, slice]]:
    """Index and rows of every group that has any."""
    edges = [0, *ends.tolist()]
    return [(group, slice(*edges[group : group + 2])) for group in range(len(ends)) if edges[group] < edges[group + 1]]
