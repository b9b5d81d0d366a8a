"""Causal attention of short sequences on a CPU, in blocks of queries, with the maps kept for the backward pass.

A block of queries multiplies only the keys up to its own end, so that almost half of the products of a full table are
never made, and nothing is computed twice: torch's flash kernel forms every map again in its backward pass. Memory grows
with the square of the length, hence `LONGEST`. Kernels that form their maps again go by the same blocks at any length.

Grouped heads: the n queries of a group become rows of one product, in the order t n (query position, then head).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

LONGEST = 512
_BLOCK = 64


class Plan(NamedTuple):
    """The sizes of a call and what every block needs of it."""

    batch: int
    groups: int
    repeats: int  # n = query heads of a group
    length: int
    mask: Tensor | None  # b g t n s, each axis but t and s possibly 1; True = attend
    slopes: Tensor | None = None  # g 1 n 1, of ALiBi
    documents: Tensor | None = None  # b t; a token sees its own alone

    def seen(self, start: int, end: int) -> Tensor | None:
        """What the queries of a block may see of the keys up to its end, b g t n s; None is all up to themselves."""
        mask = None if self.mask is None else self.mask[:, :, start:end, :, :end]
        if self.documents is None:
            return mask
        own = (self.documents[:, start:end, None] == self.documents[:, None, :end])[:, None, :, None]
        return own if mask is None else own & mask


def applies(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> bool:
    """Whether this route is right and worth it: training on a CPU, causal, square and short."""
    return causal and q.shape[2] == k.shape[2] and 1 < q.shape[2] <= LONGEST and trains_on_a_cpu(q, k, v)


def trains_on_a_cpu(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether there is a backward pass to come, in float32 or float64 on a CPU: where keeping maps pays."""
    return (
        q.device.type == "cpu"
        and q.dtype == k.dtype == v.dtype
        and q.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.is_grad_enabled()
        and (q.requires_grad or k.requires_grad or v.requires_grad)
    )


def plan(batch: int, heads: int, groups: int, length: int, mask: Tensor | None, slopes: Tensor | None = None) -> Plan:
    """Bring a mask that broadcasts to b h t s, and slopes [h], into the order of the rows."""
    repeats = heads // groups
    slopes = None if slopes is None else slopes.reshape(groups, 1, repeats, 1)
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.dim()) + mask.shape)
        grouped = (1, 1) if mask.shape[1] == 1 else (groups, repeats)
        mask = mask.reshape(mask.shape[0], *grouped, *mask.shape[2:]).transpose(2, 3)
        mask = mask.expand(-1, -1, length, -1, length)
    return Plan(batch, groups, repeats, length, mask, slopes)


def rows(x: Tensor, groups: int) -> Tensor:
    """[b (g n) t d] to [(b g) (t n) d]."""
    batch, heads, length, width = x.shape
    grouped = x.reshape(batch, groups, heads // groups, length, width).transpose(2, 3)  # b g t n d
    return grouped.reshape(batch * groups, -1, width)


def empty_heads(like: Tensor, sizes: Plan, width: int) -> tuple[Tensor, Tensor]:
    """Room for a result [b h t width], stored as b t h width to make merging heads free; and its view b g t n width."""
    stored = like.new_empty(sizes.batch, sizes.length, sizes.groups * sizes.repeats, width)
    grouped = stored.view(sizes.batch, sizes.length, sizes.groups, sizes.repeats, width)
    return stored.transpose(1, 2), grouped.transpose(1, 2)


def blocks(sizes: Plan) -> Iterator[tuple[int, int, slice]]:
    """The first and the last (excluded) position of each block, and its rows."""
    for start in range(0, sizes.length, _BLOCK):
        end = min(start + _BLOCK, sizes.length)
        yield start, end, slice(start * sizes.repeats, end * sizes.repeats)


def block_weights(queries: Tensor, keys: Tensor, sizes: Plan, start: int, end: int) -> Tensor:
    """softmax(queries keys^T) over the keys up to `end`; queries scaled, [maps b g] (t n) d; the same by s."""
    scores = torch.bmm(queries, keys[:, :end].transpose(1, 2))
    table = scores.view(-1, sizes.batch, sizes.groups, end - start, sizes.repeats, end)  # maps b g t n s
    hidden = torch.full((end - start, end - start), float("-inf"), dtype=scores.dtype).triu_(1)
    if sizes.slopes is not None:
        distance = torch.arange(start, end)[:, None] - torch.arange(end)
        table.sub_(sizes.slopes.to(table.dtype) * distance[:, None])
    table[..., start:].add_(hidden.unsqueeze(1))
    seen = sizes.seen(start, end)
    if seen is None:
        return torch.softmax(scores, -1, out=scores)
    table.masked_fill_(~seen, torch.finfo(scores.dtype).min)  # finite: a row that sees nothing must not become NaN
    torch.softmax(scores, -1, out=scores)
    table.mul_(seen)
    return scores


class KeyValueGradients:
    """Sums over the blocks, which come from the last to the first: the last one reaches all keys."""

    def __init__(self) -> None:
        self.total: Tensor | None = None

    def add(self, part: Tensor) -> None:
        """part: [(b g) s d], s at most that of the first part added."""
        if self.total is None:
            self.total = part
        else:
            self.total[:, : part.shape[1]].add_(part)

    def whole(self) -> Tensor:
        """[(b g) s d]."""
        assert self.total is not None
        return self.total

    def heads(self, batch: int) -> Tensor:
        """[b g s d]."""
        total = self.whole()
        return total.view(batch, -1, *total.shape[1:])
