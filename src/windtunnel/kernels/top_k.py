"""Attention to the k largest scores of each query (Gupta et al. 2021, arXiv 2106.06899).

    y_i = softmax over { j <= i : q_i . k_j is among the k largest } of (scale q_i . k_j) v_j

The choice is content's own and yet causal: it depends on nothing after i. Scores that tie with the k-th, but for
rounding, are kept too, so that neither the order of keys nor how many are held decides. The choice has no gradient; the
scores that were chosen have the softmax's. Queries go in blocks, and what a block needs is formed again in the backward
pass: memory grows with t alone. The saving is in the weighted sum, for every score must be known.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.attention import visible
from windtunnel.kernels.routing import working_dtype

BLOCK = 64
_SLACK = 8  # rounding steps of the largest score by which equal ones may differ


def top_k_maps(q: Tensor, k: Tensor, scale: float, top: int, mask: Tensor | None = None, causal: bool = True) -> Tensor:
    """The weights, by the equation, with the table of all scores; b h t s."""
    scores = scale * torch.einsum("bhtd,bhsd->bhts", q, k.repeat_interleave(q.shape[1] // k.shape[1], 1))
    seen = visible(q.shape[2], k.shape[2], mask, causal, q.device)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    least, slack = _least(scores, top)
    return scores.masked_fill(scores < (least - slack).unsqueeze(-1), float("-inf")).softmax(-1)


def _least(scores: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The smallest score of each row that is chosen, and how much rounding may take off it."""
    best = scores.topk(min(top, scores.shape[-1]), -1).values
    first, last = best[..., 0], best[..., -1]
    slack = _SLACK * torch.finfo(scores.dtype).eps * torch.maximum(first.abs(), last.abs().nan_to_num(posinf=0.0))
    return last, slack


def top_k_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, scale: float, top: int, mask: Tensor | None = None, causal: bool = True
) -> Tensor:
    """The equation, in plain torch; every query must see a key."""
    maps = top_k_maps(q, k, scale, top, mask, causal)
    return torch.einsum("bhts,bhsv->bhtv", maps, v.repeat_interleave(q.shape[1] // v.shape[1], 1))


def top_k_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, top: int, mask: Tensor | None = None, causal: bool = True
) -> Tensor:
    """Attention of q [b h t k] over k [b g s k] and v [b g s v]; b h t v. Every query must see a key.

    causal: the last query is aligned with the last key, and s >= t. mask: True = may attend, [b or 1, 1, t s].
    """
    return _TopK.apply(q, k, v, scale, top, mask, causal)  # type: ignore[no-any-return, no-untyped-call]


def multiplied_pairs(length: int) -> int:
    """Pairs of a query and a key that one head multiplies in causal order, twice each."""
    return sum((end - start) * end for start, end, end in _blocks(length, length, causal=True))


class _TopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, top: int, mask: Tensor | None, causal: bool
    ) -> Tensor:
        (b, h, t, _), g, s = q.shape, k.shape[1], k.shape[2]
        rows, wide = q.reshape(b, g, h // g, t, -1), working_dtype(q)
        y = v.new_empty(b, g, h // g, t, v.shape[-1])
        least = torch.empty(b, g, h // g, t, dtype=wide, device=q.device)
        for start, end, reach in _blocks(t, s, causal):
            scores = _scores(rows[:, :, :, start:end], k[:, :, :reach], scale, mask, causal, start)
            block = slice(start, end)
            last, slack = _least(scores, top)
            scores = scores.masked_fill_(scores < (last - slack).unsqueeze(-1), float("-inf"))
            least[:, :, :, block] = last - 2 * slack  # formed again, a score may differ once more
            weights = torch.softmax(scores, -1, out=scores).to(v.dtype)
            y[:, :, :, block] = torch.matmul(weights.flatten(2, 3), v[:, :, :reach]).view(*weights.shape[:4], -1)
        ctx.scale, ctx.mask, ctx.causal = scale, mask, causal
        ctx.save_for_backward(q, k, v, y, least)
        return y.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, least = ctx.saved_tensors
        (b, h, t, _), g, s, wide = q.shape, k.shape[1], k.shape[2], working_dtype(q)
        rows, dy = q.reshape(b, g, h // g, t, -1), dy.reshape(y.shape)
        drop = (dy.to(wide) * y.to(wide)).sum(-1, keepdim=True)
        dq = torch.empty_like(rows)
        dk, dv = (torch.zeros_like(x, dtype=wide) for x in (k, v))
        for start, end, reach in _blocks(t, s, ctx.causal):
            block, keys = rows[:, :, :, start:end], k[:, :, :reach]
            scores = _scores(block, keys, ctx.scale, ctx.mask, ctx.causal, start)
            scores = scores.masked_fill_(scores < least[:, :, :, start:end, None], float("-inf"))
            weights = torch.softmax(scores, -1, out=scores)
            slopes = dy[:, :, :, start:end].flatten(2, 3)  # b g (r i) v
            dweights = torch.matmul(slopes, v[:, :, :reach].mT).view(weights.shape).to(wide)
            dscores = dweights.sub_(drop[:, :, :, start:end]).mul_(weights).mul_(ctx.scale).to(q.dtype).flatten(2, 3)
            dq[:, :, :, start:end] = torch.matmul(dscores, keys).view(block.shape)
            dk[:, :, :reach] += torch.matmul(dscores.mT, block.flatten(2, 3))
            dv[:, :, :reach] += torch.matmul(weights.to(v.dtype).flatten(2, 3).mT, slopes)
        return dq.flatten(1, 2), dk.to(k.dtype), dv.to(v.dtype), None, None, None, None


def _blocks(queries: int, keys: int, causal: bool) -> Iterator[tuple[int, int, int]]:
    """The first and the last (excluded) query of each block, and how many keys it reaches."""
    for start in range(0, queries, BLOCK):
        end = min(start + BLOCK, queries)
        yield start, end, keys - queries + end if causal else keys


def _scores(rows: Tensor, keys: Tensor, scale: float, mask: Tensor | None, causal: bool, start: int) -> Tensor:
    """Scaled scores [b g r i s] of the block from query `start` on, -inf where a query may not attend.

    In the working precision. In causal order the last of the keys is that of the block's last query.
    """
    size, reach = rows.shape[3], keys.shape[2]
    scores = torch.matmul(rows.flatten(2, 3), keys.mT).to(working_dtype(rows)).mul_(scale)
    scores = scores.view(*rows.shape[:4], reach)
    if causal:
        later = torch.ones(size, size, dtype=torch.bool, device=rows.device).triu_(1)
        scores[..., reach - size :].masked_fill_(later, float("-inf"))
    if mask is not None:
        hidden = ~mask[..., start : start + size, :reach]
        scores = scores.masked_fill_(hidden if mask.dim() < 4 else hidden.unsqueeze(1), float("-inf"))
    return scores
