"""Longformer's attention as its encoders have it: both directions, windows, and global tokens anywhere (section 3.1).

Beltagy et al. 2020, arXiv 2004.05150. Language models use `SparseAttention`, whose order is causal; this is the core
that the published encoders can be held to.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.kernels.tiled import Tiles, tiled_attention

_BLOCK = 64


class Projected(NamedTuple):
    """Queries, keys and values [b h t k] of one set of projections."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def symmetric_attention(
    common: Projected,
    own: Projected,
    scale: float,
    radius: int,
    is_global: Tensor,
    padding: Tensor | None = None,
    dilation: int = 1,
) -> Tensor:
    """[b h t k] at a cost of t (2 radius + 1 + global tokens) pairs and nothing of t x t in memory.

    A plain query i sees, by the common projections and in one softmax, the keys with |i - j| <= radius dilation and
    (i - j) mod dilation = 0, and all global ones. A global query sees every key, all by the own projections; is_global
    [b t]. padding [b t] is True where there is no token: nobody sees it, and it gets zeros.
    """
    real = torch.ones_like(is_global) if padding is None else ~padding
    chosen = is_global & real
    plain = [*_windows(radius, dilation, chosen, real), *_columns(chosen, real)]
    mixed = _flat(common, scale, plain) + _flat(own, scale, _rows(chosen, real))
    return mixed.view(mixed.shape[1], *is_global.shape, -1).transpose(0, 1)


def _flat(projected: Projected, scale: float, tiles: list[Tiles]) -> Tensor:
    """Attention of all rows as one sequence (b t); zeros for queries that are in no tile."""
    q, k, v = (x.transpose(0, 1).flatten(1, 2).unsqueeze(0) for x in projected)  # 1 h (b t) k
    return tiled_attention(q, k, v, scale, tiles)


def _windows(radius: int, dilation: int, chosen: Tensor, real: Tensor) -> list[Tiles]:
    """Blocks of each residue with a halo on both sides; global keys have columns of their own."""
    b, t = real.shape
    device = real.device
    first = torch.arange(0, -(-t // dilation), _BLOCK, device=device)[:, None, None] * dilation
    first = first + torch.arange(dilation, device=device)[None, :, None]  # of each block and residue
    query = first + torch.arange(_BLOCK, device=device) * dilation
    key = first + torch.arange(-radius, _BLOCK + radius, device=device) * dilation
    query, key = (torch.where((x >= 0) & (x < t), x, -1).flatten(0, 1) for x in (query, key))
    near = (query[:, :, None] - key[:, None, :]).abs() <= radius * dilation
    near = near & (query >= 0).unsqueeze(2) & (key >= 0).unsqueeze(1)
    plain = real & ~chosen
    seen = near & plain[:, query].unsqueeze(3) & plain[:, key].unsqueeze(2)  # b n i j
    row = torch.arange(b, device=device)[:, None, None] * t
    query, key = (torch.where(x >= 0, x + row, -1).flatten(0, 1) for x in (query, key))
    return [Tiles(query, key, seen.flatten(0, 1))]


def _columns(chosen: Tensor, real: Tensor) -> list[Tiles]:
    """Every plain query with the global keys of its row."""
    return [_pairs(real[row] & ~chosen[row], chosen[row], row) for row in range(len(real)) if bool(chosen[row].any())]


def _rows(chosen: Tensor, real: Tensor) -> list[Tiles]:
    """Every global query with all keys of its row."""
    return [_pairs(chosen[row], real[row], row) for row in range(len(real)) if bool(chosen[row].any())]


def _pairs(queries: Tensor, keys: Tensor, row: int) -> Tiles:
    """All pairs of those queries and keys [t] of one row, in blocks of queries."""
    query, key = (x.nonzero().flatten() + row * len(x) for x in (queries, keys))
    blocks = F.pad(query, (0, -len(query) % _BLOCK), value=-1).view(-1, _BLOCK)
    seen = (blocks >= 0).unsqueeze(2).expand(-1, -1, len(key))
    return Tiles(blocks, key.expand(len(blocks), -1), seen)
