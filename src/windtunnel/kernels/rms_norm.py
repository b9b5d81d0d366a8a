"""RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4) and the projection on the unit sphere (nGPT).

    rms_norm(x)_i = gain_i x_i / sqrt(mean_j x_j^2 + eps)          unit_norm(x) = x / max(||x||_2, eps)

Over the last axis, in float32 (float64 for float64 input); the result has the dtype of x.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.routing import by_hand, working_dtype


def rms_norm_reference(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """The equation, in plain torch."""
    wide = x.to(working_dtype(x))
    y: Tensor = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (y if gain is None else y * gain.to(wide.dtype)).to(x.dtype)


def unit_norm_reference(x: Tensor, eps: float = 0.0) -> Tensor:
    """The equation, in plain torch."""
    wide = x.to(working_dtype(x))
    norm = wide.square().sum(-1, keepdim=True).sqrt()
    return (wide / norm.clamp(min=eps)).to(x.dtype)


def scaled_unit_norm_reference(x: Tensor, scale: Tensor) -> Tensor:
    """The equation, in plain torch."""
    return (unit_norm_reference(x.to(working_dtype(x))) * scale).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """LayerNorm's fused backward pass with a mean of zero, r = 1/rms for its deviation, and what it takes too much.

    With g = dy gain: LayerNorm's is r (g - mean(g) - y_hat mean(g y_hat)), RMSNorm's the same without mean(g).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        ctx.save_for_backward(x, gain, inverse)
        return _scaled(x, gain, inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, gain, inverse = ctx.saved_tensors
        width = x.shape[-1]
        wide, dy = (tensor.to(inverse.dtype).contiguous() for tensor in (x, dy))
        wide_gain = None if gain is None else gain.to(inverse.dtype)
        wanted = [True, gain is not None and ctx.needs_input_grad[1], False]
        dx, dgain, _ = torch.ops.aten.native_layer_norm_backward(
            dy, wide, [width], torch.zeros_like(inverse), inverse, wide_gain, None, wanted
        )
        mean = dy.mean(-1, keepdim=True) if wide_gain is None else (dy @ wide_gain).div_(width).unsqueeze(-1)
        dx.add_(mean.mul_(inverse))
        return dx.to(x.dtype), None if dgain is None or gain is None else dgain.to(gain.dtype), None


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=working_dtype(x))
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _scaled(x: Tensor, gain: Tensor | None, inverse: Tensor) -> Tensor:
    y: Tensor = x.to(inverse.dtype) * inverse
    return (y if gain is None else y.mul_(gain)).to(x.dtype)


def rms_norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """RMSNorm of x over its last axis; gain None means no learned gain."""
    if not by_hand(x):
        return rms_norm_reference(x, gain, eps)
    if torch.is_grad_enabled():
        return _RMSNorm.apply(x, gain, eps)  # type: ignore[no-any-return, no-untyped-call]
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=working_dtype(x))
    inverse = torch.addcmul(_constant(eps, norm.dtype), norm, norm, value=1 / x.shape[-1]).rsqrt_()
    return _scaled(x, gain, inverse)


@lru_cache(maxsize=16)
def _constant(value: float, dtype: torch.dtype) -> Tensor:
    """A number as a tensor, once: an operator that is given the number makes one in every call."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device="cpu")


class _UnitNorm(torch.autograd.Function):
    """dx = (dy - y (dy . y)) / ||x||; where eps stood in for the norm, dx = dy / eps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=working_dtype(x))
        y: Tensor = x.to(norm.dtype) / norm.clamp(min=eps)
        ctx.save_for_backward(y, norm)
        ctx.eps, ctx.dtype = eps, x.dtype
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        y, norm = ctx.saved_tensors
        dy = dy.to(norm.dtype)
        projection = (dy * y).sum(-1, keepdim=True)
        if ctx.eps:
            projection = projection.masked_fill_(norm < ctx.eps, 0.0)
        dx = torch.addcmul(dy, y, projection, value=-1).div_(norm.clamp(min=ctx.eps))
        return dx.to(ctx.dtype), None


class _ScaledUnitNorm(torch.autograd.Function):
    """With u = x / ||x|| and p = dy u: dscale is p summed over what scale is spread over, and

    dx = (dy scale - u (p . scale)) / ||x||.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        inverse: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=working_dtype(x)).reciprocal_()
        wide = scale.to(inverse.dtype)
        unit = x.to(inverse.dtype) * inverse
        ctx.save_for_backward(unit, wide, inverse)
        ctx.dtypes = x.dtype, scale.dtype
        return (unit * wide).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        unit, scale, inverse = ctx.saved_tensors
        dy = dy.to(unit.dtype)
        product = dy * unit
        dscale = product.sum_to_size(scale.shape)  # product itself where nothing was spread: not to be written to
        scratch = product * scale
        along = scratch.sum(-1, keepdim=True)
        dx = torch.mul(dy, scale, out=scratch).addcmul_(unit, along, value=-1).mul_(inverse)
        return dx.to(ctx.dtypes[0]), dscale.to(ctx.dtypes[1])


def scaled_unit_norm(x: Tensor, scale: Tensor) -> Tensor:
    """scale x / ||x|| over the last axis; scale broadcasts to x, whose axes it has (nGPT, equations 15 and 16)."""
    if not by_hand(x):
        return scaled_unit_norm_reference(x, scale)
    return _ScaledUnitNorm.apply(x, scale)  # type: ignore[no-any-return, no-untyped-call]


def unit_norm(x: Tensor, eps: float = 0.0) -> Tensor:
    """x divided by its Euclidean norm over the last axis (nGPT, arXiv 2410.01131, section 2)."""
    if not by_hand(x):
        return unit_norm_reference(x, eps)
    return _UnitNorm.apply(x, eps)  # type: ignore[no-any-return, no-untyped-call]
