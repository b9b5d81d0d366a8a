"""Scaled dot-product attention with grouped key/value heads (Vaswani et al. 2017, arXiv 1706.03762, eq. 1).

    attention(q, k, v) = softmax(scale q k^T + mask) v

Query head i reads key/value head i // (h / g). A causal query sees the keys up to its own position counted from the
end: the last query sees all s keys. A query with no key to see gives zeros. `slopes` [h] are those of ALiBi (Press et
al. 2022, arXiv 2108.12409): slope |i - j| is taken off the score of query i and key j, i counted in the same way.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from windtunnel.kernels import blocked

ROWS = 512  # queries at a time where biases or a mask have to be written out


def visible(queries: int, keys: int, mask: Tensor | None, causal: bool, device: torch.device) -> Tensor | None:
    """True where a query may attend: the mask and, if causal, the triangle aligned at the bottom right; t s."""
    if not causal or (queries == 1 and keys >= 1):
        return mask
    triangle = torch.ones(queries, keys, dtype=torch.bool, device=device).tril_(keys - queries)
    return triangle if mask is None else mask & triangle


def biases(slopes: Tensor, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """ALiBi's - slope |i - j|, the last query beside the last key; h t s."""
    device = slopes.device
    query = torch.arange(keys - queries, keys, device=device, dtype=dtype)[:, None]
    distance = (query - torch.arange(keys, device=device, dtype=dtype)).abs_()
    return -slopes.to(dtype)[:, None, None] * distance


def masked_softmax(scores: Tensor, seen: Tensor | None) -> Tensor:
    """Softmax over the keys that are seen; zeros where none is."""
    if seen is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1).masked_fill(~seen, 0.0)


def attention_scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """scale q k^T, the logits of the weights without what positions add; b h t s."""
    return scale * torch.einsum("bhtd,bhsd->bhts", q, k.repeat_interleave(q.shape[1] // k.shape[1], 1))


def attention_maps(
    q: Tensor,
    k: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    slopes: Tensor | None = None,
) -> Tensor:
    """The weights themselves, for references and measurements: softmax(scale q k^T + mask), b h t s."""
    scores = attention_scores(q, k, scale)
    if slopes is not None:
        scores = scores + biases(slopes, q.shape[2], k.shape[2], q.dtype)
    return masked_softmax(scores, visible(q.shape[2], k.shape[2], mask, causal, q.device))


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    slopes: Tensor | None = None,
) -> Tensor:
    """The equation, in plain torch, with the full table of scores."""
    weights = attention_maps(q, k, scale, mask, causal, slopes)
    return torch.einsum("bhts,bhsv->bhtv", weights, v.repeat_interleave(q.shape[1] // v.shape[1], 1))


class _BlockedAttention(torch.autograd.Function):
    """With A the weights: dv = A^T dy, dS = A (dy v^T - rowsum(A dy v^T)), dq = scale dS k, dk = scale dS^T q."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None, slopes: Tensor | None
    ) -> Tensor:
        sizes = blocked.plan(q.shape[0], q.shape[1], k.shape[1], q.shape[2], mask, slopes)
        queries, keys, values = blocked.rows(q * scale, sizes.groups), k.flatten(0, 1), v.flatten(0, 1)
        y, y_rows = blocked.empty_heads(q, sizes, v.shape[-1])
        maps = []
        for start, end, block in blocked.blocks(sizes):
            weights = blocked.block_weights(queries[:, block], keys, sizes, start, end)
            y_rows[:, :, start:end] = torch.bmm(weights, values[:, :end]).view_as(y_rows[:, :, start:end])
            maps.append(weights)
        ctx.scale, ctx.sizes = scale, sizes._replace(mask=None, slopes=None)
        ctx.save_for_backward(queries, keys, values, *maps)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, *maps = ctx.saved_tensors
        sizes: blocked.Plan = ctx.sizes
        dy = blocked.rows(dy, sizes.groups)
        dq, dq_rows = blocked.empty_heads(dy, sizes, queries.shape[-1])
        dk, dv = blocked.KeyValueGradients(), blocked.KeyValueGradients()
        for weights, (start, end, block) in reversed(list(zip(maps, blocked.blocks(sizes), strict=True))):
            dv.add(torch.bmm(weights.transpose(1, 2), dy[:, block]))
            dscores = torch.bmm(dy[:, block], values[:, :end].transpose(1, 2))
            torch._softmax_backward_data(dscores, weights, -1, weights.dtype, grad_input=dscores)
            part = torch.bmm(dscores, keys[:, :end])
            torch.mul(part.view_as(dq_rows[:, :, start:end]), ctx.scale, out=dq_rows[:, :, start:end])
            dk.add(torch.bmm(dscores.transpose(1, 2), queries[:, block]))
        return dq, dk.heads(sizes.batch), dv.heads(sizes.batch), None, None, None


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    slopes: Tensor | None = None,
) -> Tensor:
    """Attention of q [b h t k] over k [b g s k] and v [b g s v]; mask True = attend, broadcast to b h t s; b h t v.

    Short causal training on a CPU goes by blocks; pass causal=True beside a mask that is causal already, so that the
    blocks can leave out what it hides. Everything else goes to SDPA.
    """
    if blocked.applies(q, k, v, causal):
        return _BlockedAttention.apply(q, k, v, scale, mask, slopes)  # type: ignore[no-any-return, no-untyped-call]
    if causal and q.shape[2] > ROWS and _writes_a_table(q, k, mask, slopes):
        return _by_rows(q, k, v, scale, mask, slopes)
    return _sdpa(q, k, v, scale, mask, causal, slopes)


def _writes_a_table(q: Tensor, k: Tensor, mask: Tensor | None, slopes: Tensor | None) -> bool:
    """Whether SDPA needs t s numbers beside its inputs, and on a CPU works through all of them, hidden ones too."""
    return slopes is not None or (q.device.type == "cpu" and (mask is not None or q.shape[2] != k.shape[2]))


def _by_rows(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None, slopes: Tensor | None) -> Tensor:
    """Causal attention, `ROWS` queries at a time over the keys that they reach: no table of t s numbers."""
    t, s = q.shape[2], k.shape[2]
    mask = None if mask is None else mask.expand(*mask.shape[:-2], t, s)
    parts = []
    for start in range(0, t, ROWS):
        end = min(start + ROWS, t)
        reach = s - t + end
        seen = None if mask is None else mask[..., start:end, :reach]
        parts.append(_sdpa(q[:, :, start:end], k[:, :, :reach], v[:, :, :reach], scale, seen, True, slopes))
    return torch.cat(parts, 2)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None, causal: bool, slopes: Tensor | None = None
) -> Tensor:
    """SDPA leaves its fast route when the sizes of query and value heads differ: the smaller is padded with zeros."""
    t, s, query_size, value_size = q.shape[2], k.shape[2], q.shape[3], v.shape[3]
    if query_size < value_size:
        q, k = F.pad(q, (0, value_size - query_size)), F.pad(k, (0, value_size - query_size))
    elif value_size < query_size:
        v = F.pad(v, (0, query_size - value_size))
    square = causal and t == s and mask is None and slopes is None
    seen = None if square else visible(t, s, mask, causal, q.device)
    if slopes is not None:
        bias = biases(slopes, t, s, q.dtype)
        seen = bias if seen is None else bias.masked_fill(~seen, float("-inf"))
    grouped = q.shape[1] != k.shape[1]
    y = F.scaled_dot_product_attention(q, k, v, seen, is_causal=square, scale=scale, enable_gqa=grouped)
    return y[..., :value_size]
