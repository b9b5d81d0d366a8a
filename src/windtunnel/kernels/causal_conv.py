"""Depth-wise causal convolution over a sequence: y_t = b + Σ_s w_{taps-1-s} ⊙ x_{t-s}, s = 0 .. taps-1.

The last tap multiplies the current token. Tokens before the first are `past`, or zero. A tap is dropped where a
document starts between the token that it reads and the current one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
            if documents is not None and t >= s:
                span = documents[:, t - s : t + 1]
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
    """y [b t d] from x [b t d], weight [d taps], bias [d], past [b taps-1 d] (None: zeros) and documents [b t].

    past and documents exclude each other: what continues from earlier tokens reads one document.
    """
    if past is not None and documents is not None:
        raise ValueError("causal_conv: past and documents exclude each other")
    taps = weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0)) if past is None else torch.cat([past, x], dim=1)
    length, y = x.shape[1], x * weight[:, -1]
    if bias is not None:
        y = y + bias
    kept = None
    for s in range(1, min(taps, padded.shape[1])):
        tap = padded[:, taps - 1 - s : taps - 1 - s + length] * weight[:, taps - 1 - s]
        if documents is not None:
            kept = _same(documents, s) if kept is None else kept & _same(documents, s)
            tap = tap * kept.unsqueeze(-1)
        y = y + tap
    return y


def _same(documents: Tensor, distance: int) -> Tensor:
    """[b t], False where a document starts between the tokens `distance` and `distance - 1` back."""
    starts = documents != F.pad(documents, (1, 0), mode="replicate")[:, :-1]
    return ~F.pad(starts, (distance - 1, 0))[:, : documents.shape[1]]
