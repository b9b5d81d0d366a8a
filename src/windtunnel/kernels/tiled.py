"""Attention over chosen pairs, given as tiles: the cost follows the pattern, and nothing of t x s is stored.

A tile is a handful of queries, the keys that they may need, and which pairs of them count. Every pair of the pattern
lies in exactly one tile; a query may lie in several. The parts of its softmax are merged by their log-sum-exps, and the
backward pass forms each tile's weights again from the whole one (FlashAttention, Dao et al. 2022, arXiv 2205.14135):

    L = log sum exp(L_1, L_2),    y = exp(L_1 - L) y_1 + exp(L_2 - L) y_2
    P = exp(scale q k^T - L),  D = rowsum(dy y),  dS = P (dy v^T - D),
    dq = scale dS k,  dk = scale dS^T q,  dv = P^T dy
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.attention import attention_reference
from windtunnel.kernels.routing import working_dtype

_SCORES = 2**21  # scores that are held at a time


class Tiles(NamedTuple):
    """n tiles of one size: queries [n i] and keys [n j] as positions, -1 where there is none; seen [n i j]."""

    queries: Tensor
    keys: Tensor
    seen: Tensor


def tiled_attention_reference(q: Tensor, k: Tensor, v: Tensor, scale: float, tiles: Sequence[Tiles]) -> Tensor:
    """The equation, with the mask that the tiles add up to. Raises `ValueError` where they count a pair twice."""
    counts = torch.zeros(q.shape[2], k.shape[2], dtype=torch.int64, device=q.device)
    for queries, keys, seen in tiles:
        tile, query, key = seen.nonzero(as_tuple=True)
        pair = queries[tile, query], keys[tile, key]
        counts.index_put_(pair, torch.ones_like(pair[0]), accumulate=True)
    if counts.max() > 1:
        raise ValueError("tiles: a pair of a query and a key lies in more than one tile")
    return attention_reference(q, k, v, scale, counts > 0)


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, tiles: Sequence[Tiles]) -> Tensor:
    """Attention of q [b h t k] over those keys [b g s k] and values [b g s v] that the tiles name; b h t v.

    A query without any key gives zeros. Within one entry of `tiles` a query appears at most once.
    """
    return _Tiled.apply(q, k, v, scale, tiles)  # type: ignore[no-any-return, no-untyped-call]


def multiplied_pairs(tiles: Sequence[Tiles]) -> int:
    """Pairs of a query and a key whose score is computed, counted or not."""
    return sum(each.seen.numel() for each in tiles)


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, tiles: Sequence[Tiles]) -> Tensor:
        (b, h, t, _), g = q.shape, k.shape[1]
        grouped, wide = q.reshape(b, g, h // g, t, -1), working_dtype(q)
        y = q.new_zeros(b, g, h // g, t + 1, v.shape[-1], dtype=wide)  # the last row takes what belongs to no query
        total = q.new_full((b, g, h // g, t + 1), float("-inf"), dtype=wide)
        for queries, keys, seen in _pieces(tiles, b * h):
            scores = _scores(_rows(grouped, queries), k[:, :, keys], seen, scale)  # b g n r i j
            top = scores.amax(-1).nan_to_num(neginf=0.0)
            weights = scores.sub_(top.unsqueeze(-1)).exp_()
            part = (top + weights.sum(-1).log()).transpose(2, 3)  # b g r n i
            values = torch.matmul(weights.flatten(3, 4).to(v.dtype), v[:, :, keys]).to(wide)  # b g n (r i) v
            values = values.view(*weights.shape[:-1], -1).transpose(2, 3)
            before = total[:, :, :, queries]
            after = torch.logaddexp(before, part)
            finite = after.nan_to_num(neginf=0.0)
            y[:, :, :, queries] *= (before - finite).exp_().unsqueeze(-1)
            y[:, :, :, queries] += values * (top.transpose(2, 3) - finite).exp_().unsqueeze(-1)
            total[:, :, :, queries] = after
        ctx.scale, ctx.tiles = scale, tiles
        y = y[:, :, :, :t].to(v.dtype)
        ctx.save_for_backward(q, k, v, y, total.nan_to_num_(neginf=0.0))
        return y.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, total = ctx.saved_tensors
        (b, h, t, _), g = q.shape, k.shape[1]
        grouped, wide = q.reshape(b, g, h // g, t, -1), working_dtype(q)
        dy = dy.reshape(y.shape)
        drop = (dy.to(wide) * y.to(wide)).sum(-1)  # D
        dq = torch.zeros(b, g, h // g, t + 1, q.shape[-1], dtype=wide, device=q.device)
        dk, dv = (torch.zeros_like(x, dtype=wide) for x in (k, v))
        for queries, keys, seen in _pieces(ctx.tiles, b * h):
            rows, slopes = _rows(grouped, queries), _rows(dy, queries)  # b g n (r i) k
            near, values = k[:, :, keys], v[:, :, keys]
            weights = _scores(rows, near, seen, ctx.scale)
            weights = weights.sub_(total[:, :, :, queries].transpose(2, 3).unsqueeze(-1)).exp_().flatten(3, 4)
            dscores = torch.matmul(slopes, values.mT).to(wide)
            dscores = dscores.sub_(_rows(drop.unsqueeze(-1), queries)).mul_(weights).to(q.dtype)
            part = torch.matmul(dscores, near).to(wide).view(b, g, len(queries), h // g, queries.shape[1], -1)
            dq[:, :, :, queries] += part.transpose(2, 3)
            _add(dk, keys, torch.matmul(dscores.mT, rows))
            _add(dv, keys, torch.matmul(weights.to(v.dtype).mT, slopes))
        dq = dq[:, :, :, :t].flatten(1, 2).mul_(ctx.scale).to(q.dtype)
        return dq, dk.mul_(ctx.scale).to(k.dtype), dv.to(v.dtype), None, None


def _pieces(tiles: Sequence[Tiles], maps: int) -> Iterator[Tiles]:
    """The same tiles, no more at a time than `_SCORES` allows."""
    for each in tiles:
        size = max(1, _SCORES // (maps * each.seen[0].numel()))
        for start in range(0, len(each.seen), size):
            yield Tiles(*(x[start : start + size] for x in each))


def _rows(x: Tensor, queries: Tensor) -> Tensor:
    """[b g r t k] to [b g n (r i) k]; a query -1 reads the last one, which nothing is made of."""
    return x[:, :, :, queries].transpose(2, 3).flatten(3, 4)


def _scores(rows: Tensor, keys: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Scaled scores [b g n r i j] in the working precision, -inf where a pair does not count."""
    scores = torch.matmul(rows, keys.mT).to(working_dtype(rows)).mul_(scale)
    table = scores.view(*scores.shape[:3], -1, *seen.shape[1:])
    return table.masked_fill_(~seen.unsqueeze(1), float("-inf"))


def _add(total: Tensor, keys: Tensor, part: Tensor) -> None:
    """Sum [b g n j k] into [b g s k]; where a key is -1 the part is zero."""
    total.index_add_(2, keys.flatten() % total.shape[2], part.to(total.dtype).flatten(2, 3))
