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


def _turn(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
    """The rotation with few passes over x: neighbours as complex numbers, halves by a swapped copy."""
    rotated = 2 * cos.shape[-1]
    wide = x.to(working_dtype(x))
    cos, sin = cos.to(wide.dtype), sin.to(wide.dtype)
    if layout == "interleaved":
        turned = _turn_neighbours(wide[..., :rotated], torch.complex(cos, sin))
    else:
        turned = _turn_halves(wide[..., :rotated], cos, sin)
    if rotated < x.shape[-1]:
        turned = torch.cat((turned, wide[..., rotated:]), -1)
    return turned.to(x.dtype)


def _turn_neighbours(x: Tensor, angles: Tensor) -> Tensor:
    """(u + i w)(cos + i sin), with x read as complex numbers where its strides allow; angles are the latter."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    if pairs.stride(-1) != 1 or pairs.storage_offset() % 2 or any(step % 2 for step in pairs.stride()[:-1]):
        pairs = pairs.contiguous()
    return torch.view_as_real(torch.view_as_complex(pairs) * angles).flatten(-2)


def _turn_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [cos, cos] + [w, u] [-sin, sin]."""
    swapped, half = torch.empty_like(x), x.shape[-1] // 2
    swapped[..., :half], swapped[..., half:] = x[..., half:], x[..., :half]
    return torch.mul(x, torch.cat((cos, cos), -1)).addcmul_(swapped, torch.cat((-sin, sin), -1))


def widened(cos: Tensor, sin: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Tables [t r/2] in the form that `turn` reads: made once for all heads and layers of a pass."""
    if layout == "interleaved":
        return (torch.complex(cos, sin),)
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def turn(x: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
    """`rotate` where no gradient is wanted and x [b h t k] has the dtype of its tables, by those of `widened`."""
    if len(tables) == 1:
        rotated = 2 * tables[0].shape[-1]
        turned = _turn_neighbours(x if rotated == x.shape[-1] else x[..., :rotated], tables[0])
    else:
        rotated = tables[0].shape[-1]
        part = x if rotated == x.shape[-1] else x[..., :rotated]
        turned = torch.mul(part, tables[0]).addcmul_(part.roll(rotated // 2, -1), tables[1])
    return turned if rotated == x.shape[-1] else torch.cat((turned, x[..., rotated:]), -1)


class _Rotate(torch.autograd.Function):
    """A rotation's transpose is the rotation back: nothing of x is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.layout = layout
        return _turn(x, cos, sin, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(dy, cos, -sin, ctx.layout), None, None, None


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
