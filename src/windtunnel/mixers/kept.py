"""What sparse attention keeps of the past: the keys that queries to come may still see, and no others."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from windtunnel.layer import Context
from windtunnel.mixers.base import Buffers, KeyValues


class Kept(NamedTuple):
    """Keys for queries to come: for good those before `head` and some columns of strides; for now those from `tail`.

    columns: (stride, first, count) for the positions j with first <= j mod stride < first + count.
    """

    head: int = 0
    tail: int = 0
    columns: tuple[tuple[int, int, int], ...] = ()

    def of(self, keys: Tensor) -> Tensor:
        """True for each position that is kept."""
        return self.for_good(keys) | (keys >= self.tail)

    def for_good(self, keys: Tensor) -> Tensor:
        """True for each position that is never forgotten."""
        kept = keys < self.head
        for stride, first, count in self.columns:
            kept = kept | ((keys % stride >= first) & (keys % stride < first + count))
        return kept

    def rank(self, position: Tensor) -> Tensor:
        """How many of the positions before one are never forgotten."""
        period = math.lcm(*(stride for stride, _, _ in self.columns))
        inside, past = position.clamp(max=self.head), position.clamp(min=self.head)
        for residue in range(period):
            if any(first <= residue % stride < first + count for stride, first, count in self.columns):
                inside = inside + (past - residue + period - 1) // period - (self.head - residue + period - 1) // period
        return inside

    def count(self, seen: int) -> int:
        """How many of the first `seen` positions are kept."""
        tail = min(self.tail, seen)
        return int(self.rank(torch.tensor(tail, device="cpu"))) + seen - tail

    @classmethod
    def union(cls, each: "Iterable[Kept]") -> "Kept":
        """What any of several heads may see."""
        every = list(each)
        columns = dict.fromkeys(one for kept in every for one in kept.columns)
        return cls(max(kept.head for kept in every), min(kept.tail for kept in every), tuple(columns))


class Slots(NamedTuple):
    """The same as buffers of an engine. near: a ring of the last tokens. far: tokens that are never forgotten.

    own: keys and values of global tokens with projections of their own, else without room. The last slot of `far` and
    of `own` takes what belongs to neither, and its position stays -1.
    """

    near: Buffers
    far: Buffers
    own: Buffers

    def extend(self, keys: Tensor, values: Tensor, kept: Kept, context: Context) -> None:
        """Write new tokens [b g t k] where they belong."""
        self.near.extend(keys, values, context)
        positions = context.positions.expand(keys.shape[0], -1)
        write(self.far, keys, values, positions, kept.for_good(positions), kept.rank(positions))

    def visible(self, kept: Kept) -> tuple[KeyValues, Tensor]:
        """Keys, values and their positions [b s], -1 where there is none; nothing appears twice."""
        ring = self.near.positions
        once = torch.where(kept.for_good(ring), -1, ring)
        parts = zip(self.near[:2], self.far[:2], strict=True)
        return KeyValues(*(torch.cat(both, 2) for both in parts)), torch.cat([once, self.far.positions], 1)


def write(buffers: Buffers, keys: Tensor, values: Tensor, positions: Tensor, chosen: Tensor, slots: Tensor) -> None:
    """Put those tokens that are chosen into their slots, in place; all of them [b t]."""
    slots = torch.where(chosen, slots, buffers.keys.shape[2] - 1)
    row = torch.arange(slots.shape[0], device=slots.device)[:, None]
    buffers.keys[row, :, slots] = keys.transpose(1, 2).to(buffers.keys.dtype)
    buffers.values[row, :, slots] = values.transpose(1, 2).to(buffers.values.dtype)
    buffers.positions[row, slots] = torch.where(chosen, positions, -1)
