"""The contract of mixers: `y, state = layer(x, context, state)`."""

from typing import NamedTuple

import torch
from torch import Tensor

from windtunnel.layer import Context, MixerLayer
from windtunnel.spec import Spec


class Mixer(Spec):
    """A way of moving information along the sequence."""

    def build(self, width: int) -> "MixerLayer":
        """The module for a residual stream of `width` numbers."""
        raise NotImplementedError


class AttendingLayer(MixerLayer):
    """Base of mixers whose output is a weighted sum of values, with the weights open to measurement."""

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


class KeyValues(NamedTuple):
    """Keys [b g s k] and values [b g s e] of the tokens seen so far."""

    keys: Tensor
    values: Tensor

    def extend(self, keys: Tensor, values: Tensor) -> "KeyValues":
        """These followed by new ones, as new tensors."""
        return KeyValues(torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2))

    def last(self, count: int) -> "KeyValues":
        """Only the newest `count` of them."""
        return KeyValues(self.keys[:, :, -count:], self.values[:, :, -count:]) if count else self._empty()

    def _empty(self) -> "KeyValues":
        return KeyValues(self.keys[:, :, :0], self.values[:, :, :0])


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b t (h k)] to [b h t k]."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[b h t k] to [b t (h k)]."""
    return x.transpose(1, 2).flatten(2)
