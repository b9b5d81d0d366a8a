"""Depth-wise causal convolution over a sequence: y_t = b + Σ_s w_{taps-1-s} ⊙ x_{t-s}, s = 0 .. taps-1.

The last tap multiplies the current token. Tokens before the first are `past`, or zero. A tap is dropped where a
document starts between the token that it reads and the current one.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.routing import by_hand


def causal_conv_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past: Tensor | None = None,
    documents: Tensor | None = None,
) -> Tensor:
    """The equation, one token and one tap after another."""
    taps = weight.shape[1]
    earlier = x.new_zeros(x.shape[0], taps - 1, x.shape[2]) if past is None else past
    tokens = torch.cat([earlier, x], dim=1)
    outputs = []
    for t in range(x.shape[1]):
        y = torch.zeros_like(x[:, 0]) if bias is None else bias.expand_as(x[:, 0])
        for s in range(taps):
            tap = tokens[:, t + taps - 1 - s] * weight[:, taps - 1 - s]
            if documents is not None:
                now = documents.shape[1] - x.shape[1] + t
                span = documents[:, max(0, now - s) : now + 1]
                tap = tap * (span == span[:, -1:]).all(1, keepdim=True)
            y = y + tap
        outputs.append(y)
    return torch.stack(outputs, dim=1) if outputs else x


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past: Tensor | None = None,
    documents: Tensor | None = None,
) -> Tensor:
    """y [b t d] from x [b t d], weight [d taps], bias [d], past [b taps-1 d] (None: zeros) and documents [b s].

    documents end with the last token of x; they begin with its first, or before it where there is a past.
    """
    padded = F.pad(x, (0, 0, weight.shape[1] - 1, 0)) if past is None else torch.cat([past, x], dim=1)
    kept = _kept(documents, weight.shape[1], x.shape[1])
    if x.dtype == weight.dtype and by_hand(x):
        return _CausalConv.apply(padded, weight, bias, kept)  # type: ignore[no-any-return, no-untyped-call]
    length = x.shape[1]
    y = x * weight[:, -1]
    for back in range(1, weight.shape[1]):
        first = weight.shape[1] - 1 - back
        tap = padded[:, first : first + length]
        y = y + (tap if kept is None else tap * kept[back - 1]) * weight[:, first]
    return y if bias is None else y + bias


class _CausalConv(torch.autograd.Function):
    """One fused multiply-add a tap, a sequence at a time so that what the taps share stays in the cache."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor | None, kept: list[Tensor] | None) -> Tensor:
        columns = weight.t().contiguous()  # taps d
        y = torch.empty_like(padded[:, weight.shape[1] - 1 :], memory_format=torch.contiguous_format)
        for row, out in enumerate(y):
            torch.mul(padded[row, weight.shape[1] - 1 :], columns[-1], out=out)
            if bias is not None:
                out.add_(bias)
            for back in range(1, weight.shape[1]):
                first = weight.shape[1] - 1 - back
                tap = padded[row, first : first + len(out)]
                out.addcmul_(tap if kept is None else tap * kept[back - 1][row], columns[first])
        ctx.save_for_backward(padded, columns)
        ctx.kept, ctx.biased = kept, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        padded, columns = ctx.saved_tensors
        taps, length = len(columns), gradient.shape[1]
        d_padded, d_columns = torch.zeros_like(padded), torch.zeros_like(columns)
        product = torch.empty_like(padded[0, :length])
        for row, g in enumerate(gradient):
            for back in range(taps):
                first = taps - 1 - back
                seen = g if ctx.kept is None or not back else g * ctx.kept[back - 1][row]
                d_padded[row, first : first + length].addcmul_(seen, columns[first])
                torch.mul(seen, padded[row, first : first + length], out=product)
                d_columns[first] += product.sum(0)
        return d_padded, d_columns.t(), gradient.sum((0, 1)) if ctx.biased else None, None


def _kept(documents: Tensor | None, taps: int, length: int) -> list[Tensor] | None:
    """[b t 1] for each distance from 1 on, False where a document starts in between."""
    if documents is None:
        return None
    documents = documents[:, -(length + taps - 1) :]
    kept: list[Tensor] = []
    for distance in range(1, taps):
        same = _same(documents, distance)
        kept.append(same if not kept else same & kept[-1])
    return [each[:, -length:].unsqueeze(-1) for each in kept]


def _same(documents: Tensor, distance: int) -> Tensor:
    """[b t], False where a document starts between the tokens `distance` and `distance - 1` back."""
    starts = documents != F.pad(documents, (1, 0), mode="replicate")[:, :-1]
    return ~F.pad(starts, (distance - 1, 0))[:, : documents.shape[1]]
