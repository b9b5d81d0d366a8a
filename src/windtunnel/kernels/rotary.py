"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864, eq. 34).

Each pair (u, w) of features turns by its angle: (u cos - w sin, w cos + u sin). The pairs are (i, i + r/2) in the
"half" layout (GPT-NeoX, Llama) and (2i, 2i + 1) in the "interleaved" one (GPT-J, PaLM). Features from r
on pass through.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.routing import by_hand, working_dtype

Layout = Literal["half", "interleaved"]


def _pairs(x: Tensor, rotated: int, layout: Layout) -> tuple[Tensor, Tensor]:
    """Views of the first and the second feature of every pair; each ... t r/2."""
    if layout == "half":
        return x[..., : rotated // 2], x[..., rotated // 2 : rotated]
    return x[..., 0:rotated:2], x[..., 1:rotated:2]


def rotate_reference(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout = "half") -> Tensor:
    """The equation, in plain torch."""
    rotated = 2 * cos.shape[-1]
    u, w = _pairs(x.to(torch.promote_types(x.dtype, cos.dtype)), rotated, layout)  # b h t r/2
    turned = (u * cos - w * sin, w * cos + u * sin)
    joined = torch.cat(turned, -1) if layout == "half" else torch.stack(turned, -1).flatten(-2)  # b h t r
    return torch.cat((joined.to(x.dtype), x[..., rotated:]), -1)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout, sign: int) -> Tensor:
    """Turn by the angles (sign 1) or back (sign -1), writing each pair's views in place."""
    rotated = 2 * cos.shape[-1]
    wide = x.to(working_dtype(x))
    cos, sin = cos.to(wide.dtype), sin.to(wide.dtype)
    out = torch.empty_like(wide)
    u, w = _pairs(wide, rotated, layout)
    first, second = _pairs(out, rotated, layout)
    torch.mul(u, cos, out=first).addcmul_(w, sin, value=-sign)
    torch.mul(w, cos, out=second).addcmul_(u, sin, value=sign)
    if rotated < x.shape[-1]:
        out[..., rotated:] = wide[..., rotated:]
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    """A rotation's transpose is the rotation back: nothing of x is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.layout = layout
        return _turn(x, cos, sin, layout, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(dy, cos, sin, ctx.layout, -1), None, None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout = "half") -> Tensor:
    """Turn the first r features of x [b h t k] by angles given as cos, sin [t r/2] or [b 1 t r/2] (no gradient there).

    Raises ValueError if r is larger than k, or the layout is unknown.
    """
    if layout not in ("half", "interleaved"):
        raise ValueError(f"layout is {layout!r}; allowed: 'half', 'interleaved'")
    if 2 * cos.shape[-1] > x.shape[-1]:
        raise ValueError(f"rotary features are {2 * cos.shape[-1]}, more than the head size {x.shape[-1]}")
    if not by_hand(x):
        return rotate_reference(x, cos, sin, layout)
    return _Rotate.apply(x, cos, sin, layout)  # type: ignore[no-any-return, no-untyped-call]
