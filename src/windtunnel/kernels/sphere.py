"""nGPT's step on the unit sphere (Loshchilov et al. 2024, arXiv 2410.01131, eq. 10-11).

    sphere_step(x, branch, rate) = Norm(x + rate (Norm(branch) - x)),   Norm(z) = z / ||z||_2 over the last axis

In float32 (float64 for float64 input); the result has the dtype of x.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.rms_norm import unit_norm_reference
from windtunnel.kernels.routing import by_hand, working_dtype


def sphere_step_reference(x: Tensor, branch: Tensor, rate: Tensor) -> Tensor:
    """The equation, in plain torch."""
    wide, rate = x.to(working_dtype(x)), rate.to(working_dtype(x))
    target = unit_norm_reference(branch.to(wide.dtype))
    return unit_norm_reference(wide + rate * (target - wide)).to(x.dtype)


class _SphereStep(torch.autograd.Function):
    """With u = Norm(branch), z = x + rate (u - x), y = Norm(z) and dz = (dy - y (dy . y)) / ||z||:

    du = rate dz, dx = dz - du, drate = the sum of dz (u - x) over the rows, dbranch = (du - u (du . u)) / ||branch||.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, rate: Tensor) -> Tensor:
        dtype = working_dtype(x)
        wide, wide_rate = x.to(dtype), rate.to(dtype)
        shrink: Tensor = torch.linalg.vector_norm(branch, dim=-1, keepdim=True, dtype=dtype).reciprocal_()
        target = branch.to(dtype) * shrink
        moved = torch.lerp(wide, target, wide_rate)
        inverse: Tensor = torch.linalg.vector_norm(moved, dim=-1, keepdim=True).reciprocal_()
        y = moved.mul_(inverse)
        ctx.save_for_backward(wide, target, wide_rate, y, shrink, inverse)
        ctx.dtypes = (x.dtype, branch.dtype, rate.dtype)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, target, rate, y, shrink, inverse = ctx.saved_tensors
        dy = dy.to(y.dtype)
        dz = torch.addcmul(dy, y, (dy * y).sum(-1, keepdim=True), value=-1).mul_(inverse)
        scratch = torch.sub(target, x).mul_(dz)
        drate = scratch.flatten(0, -2).sum(0)
        du = dz * rate
        dx = dz.sub_(du)
        along = torch.mul(du, target, out=scratch).sum(-1, keepdim=True)
        dbranch = du.addcmul_(target, along, value=-1).mul_(shrink)
        return tuple(each.to(dtype) for each, dtype in zip((dx, dbranch, drate), ctx.dtypes, strict=True))


def sphere_step(x: Tensor, branch: Tensor, rate: Tensor) -> Tensor:
    """Move unit vectors x [... d] towards the direction of `branch` [... d] by `rate` [d], and back onto the sphere."""
    if not by_hand(x):
        return sphere_step_reference(x, branch, rate)
    return _SphereStep.apply(x, branch, rate)  # type: ignore[no-any-return, no-untyped-call]
