"""No mixing: what a block holds where it only has an MLP (`residuals.Unmixed`)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from windtunnel.layer import Context, MixerLayer
from windtunnel.mixers.base import Mixer


class Nothing(Mixer):
    """0 for every token."""

    def build(self, width: int) -> "NothingLayer":
        return NothingLayer()


class NoState(NamedTuple):
    """Nothing is remembered."""


class NothingLayer(MixerLayer):
    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        return torch.zeros_like(x), state

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> NoState:
        return NoState()
