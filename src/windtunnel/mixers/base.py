"""The contract of mixers: `y, state = layer(x, context, state)`."""

from typing import NamedTuple

import torch
from torch import Tensor

from windtunnel.layer import Context, MixerLayer
from windtunnel.spec import Spec


class Mixer(Spec):
    """A way of moving information along the sequence."""

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one."""
        return True

    @property
    def core(self) -> "Mixer":
        """The mixer itself, without one that stands in front of it."""
        return self

    def build(self, width: int) -> "MixerLayer":
        """The module for a residual stream of `width` numbers."""
        raise NotImplementedError


class KeyValues(NamedTuple):
    """Keys [b g s k] and values [b g s e] of the tokens seen so far."""

    keys: Tensor
    values: Tensor

    def extend(self, keys: Tensor, values: Tensor, context: Context) -> "KeyValues":
        """These followed by new ones, as new tensors."""
        return KeyValues(torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2))

    def in_order(self, context: Context) -> "KeyValues | None":
        """These, where the last key is that of the last query; None where they lie about in slots."""
        return self

    def visible(self, context: Context, window: int | None = None, slopes: Tensor | None = None) -> "Visible":
        """All of them, and which the queries of this call may see; ALiBi's `slopes` are left to whoever attends."""
        return Visible(self.keys, self.values, context.mask(self.keys.shape[2], window), causal=True)

    def kept(self, window: int | None = None) -> "KeyValues":
        """What the next call can still attend to."""
        return self if window is None else self.last(window - 1)

    def last(self, count: int) -> "KeyValues":
        """Only the newest `count` of them."""
        return KeyValues(self.keys[:, :, -count:], self.values[:, :, -count:]) if count else self._empty()

    def to(self, dtype: torch.dtype) -> "KeyValues":
        """These in the type that attention computes in; buffers may hold a narrower one."""
        return self if self.keys.dtype == dtype else KeyValues(self.keys.to(dtype), self.values.to(dtype))

    def _empty(self) -> "KeyValues":
        return KeyValues(self.keys[:, :, :0], self.values[:, :, :0])


class Buffers(NamedTuple):
    """Keys [b g c k] and values [b g c e] in slots (g may differ), and the position in each slot [b c], -1 where none.

    Position p lies in slot p modulo c. Calls write in place: whoever made the buffers owns them.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor

    @classmethod
    def empty(cls, none: KeyValues, slots: int) -> "Buffers":
        """Slots that hold nothing, for what grows from `none`."""
        keys, values = (part.new_zeros(*part.shape[:2], slots, part.shape[3]) for part in none)
        return cls(keys, values, torch.full((len(keys), slots), -1, device=keys.device))

    def extend(self, keys: Tensor, values: Tensor, context: Context) -> "Buffers":
        """Write the new ones where their positions belong, in the type of the buffers."""
        keys, values = keys.to(self.keys.dtype), values.to(self.values.dtype)
        count, first = keys.shape[2], 0
        if context.positions.dim() == 1:
            first = (context.reach - count) % self.keys.shape[2]
        if context.positions.dim() == 1 and first + count <= self.keys.shape[2]:
            self.keys.narrow(2, first, count).copy_(keys)  # neighbours: cheaper than an index
            self.values.narrow(2, first, count).copy_(values)
            self.positions.narrow(1, first, count).copy_(context.positions)
            return self
        slots = context.positions % self.keys.shape[2]
        if slots.dim() == 1:
            self.keys.index_copy_(2, slots, keys)
            self.values.index_copy_(2, slots, values)
            self.positions[:, slots] = context.positions
            return self
        row = torch.arange(slots.shape[0], device=slots.device)[:, None]
        self.keys[row, :, slots] = keys.transpose(1, 2)
        self.values[row, :, slots] = values.transpose(1, 2)
        self.positions[row, slots] = context.positions
        return self

    def in_order(self, context: Context) -> KeyValues | None:
        """The slots in use where they are in order: rows stand at one place, and nothing has been overwritten."""
        if context.positions.dim() == 2 or context.reach > self.keys.shape[2]:
            return None
        return KeyValues(self.keys.narrow(2, 0, context.reach), self.values.narrow(2, 0, context.reach))

    def visible(self, context: Context, window: int | None = None, slopes: Tensor | None = None) -> "Visible":
        """The slots in use, and which of them this call may see; ALiBi's biases, if any, are in the mask."""
        ordered = self.in_order(context)
        if ordered is not None and slopes is None:
            return ordered.visible(context, window)
        used: int = torch.sym_min(context.reach, self.keys.shape[2])  # type: ignore[no-untyped-call]  # may be symbols
        keys, values = self.keys[:, :, :used], self.values[:, :, :used]
        held = self.positions[:, None, None, :used]  # b 1 1 c
        query = context.positions.view(-1, 1, context.positions.shape[-1], 1)  # b 1 t 1
        mask = (held >= 0) & (held <= query)
        if window is not None:
            mask = mask & (query - held < window)
        if slopes is not None:
            wide = torch.promote_types(keys.dtype, torch.float32)
            distance = (query - held).to(wide)  # b 1 t c
            mask = (-slopes.to(wide)[:, None, None] * distance).masked_fill(~mask, float("-inf"))
        return Visible(keys, values, mask, causal=False)

    def kept(self, window: int | None = None) -> "Buffers":
        """Everything: what falls out of the window is overwritten."""
        return self


class Visible(NamedTuple):
    """Keys and values to attend to, and a mask: True = attend, numbers to add to the scores, or None (causal order)."""

    keys: Tensor
    values: Tensor
    mask: Tensor | None
    causal: bool

    def to(self, dtype: torch.dtype) -> "Visible":
        """Keys and values in the type that attention computes in, and biases too."""
        mask = self.mask
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(dtype)
        return Visible(self.keys.to(dtype), self.values.to(dtype), mask, self.causal)


class AttendingLayer(MixerLayer):
    """Base of mixers whose output is a weighted sum of values, with the weights open to measurement.

    window: keys that a query sees, its own included; None is all before it.
    """

    window: int | None = None

    @property
    def score_bound(self) -> float | None:
        """What no score can exceed in size, whatever the input; None where nothing bounds them."""
        return None

    def attention_scores(self, x: Tensor, context: Context) -> Tensor:
        """The logits of every map over all tokens of x [b t d], later keys included; b h t s."""
        raise NotImplementedError

    def attention_maps(self, x: Tensor, context: Context) -> Tensor:
        """The weights of every head over all tokens of x [b t d], by the equations, with the whole table; b h t s."""
        raise NotImplementedError

    def reserve(self, batch: int, device: torch.device, dtype: torch.dtype, capacity: int, chunk: int) -> "Buffers":
        slots = capacity if self.window is None else min(capacity, self.window - 1 + chunk)
        return Buffers.empty(self.initial_state(batch, device, dtype), slots)


def as_kept(x: Tensor, state: Tensor) -> Tensor:
    """x rounded to what a state of narrower numbers will give back of it.

    What a call computes from its own inputs and what a later one computes from the state are then the same.
    """
    return x if x.dtype == state.dtype else x.to(state.dtype).to(x.dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b t (h k)] to [b h t k]."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[b h t k] to [b t (h k)]."""
    return x.transpose(1, 2).flatten(2)
