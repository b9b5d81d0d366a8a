"""Short causal convolutions: the layer that mixers have inside, and one in front of any mixer."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from windtunnel.init import uniform
from windtunnel.kernels.causal_conv import causal_conv
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, Layer, MixerLayer, Role
from windtunnel.mixers.base import Mixer, as_kept


class Convolved(Mixer):
    """mixer(x + conv(x)): every token carries its own last `taps` inputs before another mixer projects it.

    The convolution is causal and depth-wise, without bias or activation, and its taps start as `torch.nn.Conv1d`'s do,
    uniform in ±1/sqrt(taps): Canon-A of Allen-Zhu 2025 (arXiv 2512.17351), which has 4 of them. Based's attention too
    is compared behind a convolution (Arora et al. 2024, arXiv 2402.18668), there of 3 taps and a layer of its own.
    """

    mixer: Mixer
    taps: int = 4

    def validate(self) -> None:
        self.require(self.taps > 1, f"taps must be at least 2, got {self.taps}")

    @property
    def causal(self) -> bool:
        return self.mixer.causal

    @property
    def core(self) -> Mixer:
        return self.mixer.core

    def build(self, width: int) -> "ConvolvedLayer":
        return ConvolvedLayer(self, width)


class ConvolvedState(NamedTuple):
    """past: the convolution's last inputs [b taps-1 d]. inner: the state of the mixer behind it."""

    past: Tensor
    inner: Any


class ConvolvedLayer(MixerLayer):
    def __init__(self, spec: Convolved, width: int) -> None:
        super().__init__()
        self.width, self.taps = width, spec.taps
        edge = 1 / math.sqrt(spec.taps)
        self.conv = ConvolutionLayer(width, Role("filter", fan_in=spec.taps, draw=uniform(-edge, edge)), bias=False)
        self.mixer = spec.mixer.build(width)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        past, inner = (None, None) if state is None else (state.past, state.inner)
        nearby, past = self.conv(x, context, past)
        y, inner = self.mixer((x + nearby).to(x.dtype), context, inner)
        return y, None if state is None else ConvolvedState(past, inner)

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> ConvolvedState:
        return ConvolvedState(self._before(batch, device, dtype), self.mixer.initial_state(batch, device, dtype))

    def reserve(
        self, batch: int, device: torch.device, dtype: torch.dtype, capacity: int, chunk: int
    ) -> ConvolvedState:
        inner = self.mixer.reserve(batch, device, dtype, capacity, chunk)
        return ConvolvedState(self._before(batch, device, dtype), inner)

    def _before(self, batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.zeros(batch, self.taps - 1, self.width, device=device, dtype=dtype)

    def costs(self, length: int) -> list[Cost]:
        """Of the taps, taps - 1 sums of them, and one with x."""
        return [Cost("convolution", elementwise=2.0 * self.taps * self.width), *self.mixer.costs(length)]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return (self.taps - 1) * self.width * element + self.mixer.state_bytes(length, element)


class ConvolutionLayer(Layer):
    """A causal depth-wise convolution, computed in float32 or wider.

    taps: the role of the weight [d taps], whose fan-in is their number. bias: one that starts at 0.
    """

    mechanism = "convolution"

    def __init__(self, width: int, taps: Role, bias: bool) -> None:
        super().__init__()
        self.weight = self.declare("weight", (width, taps.fan_in), taps)
        self.bias = self.declare("bias", (width,), Role("bias", constant=0.0)) if bias else None

    def forward(self, x: Tensor, context: Context, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """y [b t d] in float32 or wider, and what the next call takes as `past` [b taps-1 d]: None if there is none."""
        x = x if past is None else as_kept(x, past)
        dtype = working_dtype(x)
        bias = None if self.bias is None else self.bias.to(dtype)
        before = None if past is None else past.to(dtype)
        y = causal_conv(x.to(dtype), self.weight.to(dtype), bias, before, context.documents)
        return y, None if past is None else newest(past, x)


def newest(past: Tensor, inputs: Tensor) -> Tensor:
    """The last of `past` [b s d] and `inputs` [b t d], as many as it holds: a copy, lest it keep them all alive."""
    seen = torch.cat([past, inputs.to(past.dtype)], dim=1)
    return seen[:, inputs.shape[1] :].clone()
