"""Causal attention in a sliding window at a cost linear in the length: a query sees `window` keys, its own included.

    y_i = softmax_j(scale q_i . k_j - slope (i - j)) v_j,    i - window < j <= i

Queries go in blocks. A block meets its own keys and the window - 1 before them (its halo), and a mask cuts the two
corners exactly; no table of t x s is stored. `slopes` [h] are ALiBi's, or None. Two routes, chosen by measurement
(`windtunnel bench window`):

- training on a CPU keeps the maps of the blocks for the backward pass, t (window + 63) numbers a head, where the window
  is at most `blocked.LONGEST`;
- everything else cuts keys and values into overlapping blocks and gives them to SDPA as a batch.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from windtunnel.kernels import blocked
from windtunnel.kernels.attention import attention_reference, biases

_BLOCK = 64
_COPIES = 8  # an overlapping block is at least this share of the window, so that keys are not copied more often
_TABLE = 2048 * 2048  # a mask with more entries than this is never worth its memory


class Band(NamedTuple):
    """The sizes of a call. Its last query is aligned with its last key."""

    queries: int
    keys: int
    window: int

    @property
    def before(self) -> int:
        """Keys before the first query's own."""
        return self.keys - self.queries

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """The positions at which each block of queries starts and ends (excluded), and that of its first key."""
        for start in range(self.before, self.keys, _BLOCK):
            yield start, min(start + _BLOCK, self.keys), max(0, start - self.window + 1)


def keeps_maps(q: Tensor, k: Tensor, v: Tensor, window: int) -> bool:
    """Whether a call goes by the route of kept maps."""
    return window <= blocked.LONGEST and blocked.trains_on_a_cpu(q, k, v)


def worth(queries: int, keys: int, window: int, kept: bool) -> bool:
    """Whether blocks beat a mask over all keys; by kept maps they always do."""
    if window >= keys or queries == 1:
        return False
    return kept or queries * keys > min(2 * overlapping_pairs(queries, window), _TABLE)


def kept_pairs(length: int, window: int) -> int:
    """Pairs of a query and a key that the route of kept maps multiplies in one head."""
    return sum((end - start) * (end - first) for start, end, first in Band(length, length, window).blocks())


def overlapping_pairs(queries: int, window: int) -> int:
    """The same by the route of overlapping blocks, the last one filled up."""
    block = _overlapping_block(window)
    return -(-queries // block) * block * (block + window - 1)


def banded_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int,
    documents: Tensor | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """The equation, with a table of all scores."""
    t, s = q.shape[2], k.shape[2]
    distance = torch.arange(s - t, s, device=q.device)[:, None] - torch.arange(s, device=q.device)
    seen = (distance >= 0) & (distance < window)
    if documents is not None:
        seen = seen & (documents[:, None, s - t :, None] == documents[:, None, None, :])
    return attention_reference(q, k, v, scale, seen, slopes=slopes)


def banded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int,
    documents: Tensor | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Attention of q [b h t k] in a window over k [b g s k] and v [b g s v], s >= t; b h t v.

    documents: ids [b s]; a query sees the keys of its own.
    """
    if keeps_maps(q, k, v, window):
        return _Banded.apply(q, k, v, scale, window, documents, slopes)  # type: ignore[no-any-return, no-untyped-call]
    return _overlapping(q, k, v, scale, window, documents, slopes)


class _Banded(torch.autograd.Function):
    """As in plain attention, block by block: with A the weights of a block,

    dv = A^T dy, dS = A (dy v^T - rowsum(A dy v^T)), dq = scale dS k, dk = scale dS^T q.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int,
        documents: Tensor | None,
        slopes: Tensor | None,
    ) -> Tensor:
        band = Band(q.shape[2], k.shape[2], window)
        sizes = blocked.plan(q.shape[0], q.shape[1], k.shape[1], q.shape[2], None, slopes)
        queries, keys, values = blocked.rows(q * scale, sizes.groups), k.flatten(0, 1), v.flatten(0, 1)
        y, y_rows = blocked.empty_heads(q, sizes, v.shape[-1])  # b g t n v
        maps = []
        for start, end, first in band.blocks():
            rows, block = _rows(band, sizes, start, end)
            weights = torch.bmm(queries[:, rows], keys[:, first:end].transpose(1, 2))
            table = weights.view(sizes.batch, sizes.groups, end - start, sizes.repeats, end - first)
            if sizes.slopes is not None:
                distance = torch.arange(start, end)[:, None, None] - torch.arange(first, end)  # t 1 s
                table.sub_(sizes.slopes.to(table.dtype) * distance)
            _hide(table, start, end, first, window, documents)
            torch.softmax(weights, -1, out=weights)
            y_rows[:, :, block] = torch.bmm(weights, values[:, first:end]).view_as(y_rows[:, :, block])
            maps.append(weights)
        ctx.scale, ctx.band, ctx.sizes = scale, band, sizes._replace(slopes=None)
        ctx.save_for_backward(queries, keys, values, *maps)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, *maps = ctx.saved_tensors
        band: Band = ctx.band
        sizes: blocked.Plan = ctx.sizes
        dy = blocked.rows(dy, sizes.groups)
        dq, dq_rows = blocked.empty_heads(dy, sizes, queries.shape[-1])
        dk, dv = torch.zeros_like(keys), torch.zeros_like(values)
        for weights, (start, end, first) in zip(maps, band.blocks(), strict=True):
            rows, block = _rows(band, sizes, start, end)
            dv[:, first:end].baddbmm_(weights.transpose(1, 2), dy[:, rows])
            dscores = torch.bmm(dy[:, rows], values[:, first:end].transpose(1, 2))
            torch._softmax_backward_data(dscores, weights, -1, weights.dtype, grad_input=dscores)
            part = torch.bmm(dscores, keys[:, first:end])
            torch.mul(part.view_as(dq_rows[:, :, block]), ctx.scale, out=dq_rows[:, :, block])
            dk[:, first:end].baddbmm_(dscores.transpose(1, 2), queries[:, rows])
        heads = (sizes.batch, sizes.groups, band.keys, -1)
        return dq, dk.view(heads), dv.view(heads), None, None, None, None


def _rows(band: Band, sizes: blocked.Plan, start: int, end: int) -> tuple[slice, slice]:
    """The rows (t n) of a block, and its queries counted from the first of the call."""
    first, last = start - band.before, end - band.before
    return slice(first * sizes.repeats, last * sizes.repeats), slice(first, last)


def _hide(table: Tensor, start: int, end: int, first: int, window: int, documents: Tensor | None) -> None:
    """-inf where the query at start + i may not see the key at first + j; table b g t n s. Its own it always sees."""
    size, hidden = end - start, torch.full((end - start, end - first), float("-inf"), dtype=table.dtype)
    later = hidden[:, :size].triu(1).unsqueeze(1)  # t 1 s
    table[..., start - first :].add_(later)
    passed = max(0, end - window - first)  # keys that the last query has left behind
    if passed:
        table[..., :passed].add_(hidden[:, :passed].tril(start - first - window).unsqueeze(1))
    if documents is not None:
        other = documents[:, None, start:end, None, None] != documents[:, None, None, None, first:end]
        table.masked_fill_(other, float("-inf"))


def _overlapping_block(window: int) -> int:
    return _BLOCK * max(1, -(-window // (_COPIES * _BLOCK)))


def _overlapping(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int,
    documents: Tensor | None,
    slopes: Tensor | None,
) -> Tensor:
    """Blocks as a batch: [(b c) h block k] over [(b c) g (window - 1 + block) k], c blocks."""
    b, h, t, _ = q.shape
    block, before = _overlapping_block(window), k.shape[2] - t
    count = -(-t // block)
    keys, values = (_with_halo(x, t, block, window - 1).flatten(0, 1) for x in (k, v))
    queries = F.pad(q, (0, 0, 0, count * block - t)).view(b, h, count, block, -1).transpose(1, 2).flatten(0, 1)
    seen = _seen(count, block, window, before, q.device)[:, None]  # c 1 t s
    if documents is not None:
        ids = _with_halo(documents[:, None, :, None], t, block, window - 1)  # b c 1 s 1
        seen = seen & (ids[..., -block:, :] == ids.mT)
    seen = seen.expand(b, -1, -1, -1, -1).flatten(0, 1)
    if slopes is not None:
        seen = biases(slopes, block, block + window - 1, q.dtype).masked_fill(~seen, float("-inf"))
    y = F.scaled_dot_product_attention(queries, keys, values, seen, scale=scale, enable_gqa=h != k.shape[1])
    return y.view(b, count, h, block, -1).transpose(1, 2).flatten(2, 3)[:, :, :t]


def _with_halo(x: Tensor, queries: int, block: int, halo: int) -> Tensor:
    """[b g s d] to [b c g (halo + block) d]: the keys of every block, zeros where there are none."""
    before = x.shape[2] - queries
    x = F.pad(x[:, :, max(0, before - halo) :], (0, 0, max(0, halo - before), -queries % block))
    return x.unfold(2, halo + block, block).permute(0, 2, 1, 4, 3)


def _seen(count: int, block: int, window: int, before: int, device: torch.device) -> Tensor:
    """[c t s], True where a query of a block may see a key of its halo and block; none lies before the first."""
    query = torch.arange(window - 1, window - 1 + block, device=device)[:, None]
    key = torch.arange(window - 1 + block, device=device)
    exists = key + torch.arange(count, device=device)[:, None] * block >= window - 1 - before
    return exists[:, None] & (key <= query) & (query - key < window)
