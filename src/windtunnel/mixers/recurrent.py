"""Griffin's recurrent block (De et al. 2024, arXiv 2402.19427, section 2.3)."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels.causal_conv import causal_conv
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, Layer, MixerLayer, Role
from windtunnel.mixers.base import Mixer, as_kept
from windtunnel.mixers.rg_lru import RGLRU


class Recurrent(Mixer):
    """W_o (GELU(W_y x) ⊙ RGLRU(conv(W_x x))), every map with a bias; GELU by its tanh approximation.

    recurrent_width: of both branches, about 4/3 of the model's in the paper. taps: of the causal depth-wise
    convolution, after which there is no activation.
    """

    recurrent_width: int
    taps: int = 4
    recurrence: RGLRU = RGLRU()

    def validate(self) -> None:
        self.require(self.recurrent_width > 0, f"recurrent_width must be positive, got {self.recurrent_width}")
        self.require(self.taps > 1, f"taps must be at least 2, got {self.taps}")

    def build(self, width: int) -> "RecurrentLayer":
        return RecurrentLayer(self, width)


class RecurrentState(NamedTuple):
    """The recurrence's state [b r] in float32 or wider, and the convolution's last inputs [b taps-1 r]."""

    hidden: Tensor
    inputs: Tensor


class RecurrentLayer(MixerLayer):
    mechanism = "recurrent projections"

    def __init__(self, spec: Recurrent, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.channels = spec.recurrent_width
        self.y = Linear(width, self.channels, "reads", bias=True)
        self.x = Linear(width, self.channels, "reads", bias=True)
        self.conv = ConvolutionLayer(self.channels, spec.taps)
        self.recurrence = spec.recurrence.build(self.channels)
        self.o = Linear(self.channels, width, "writes", bias=True)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        gate, inputs = F.gelu(self.y(x), approximate="tanh"), self.x(x)  # b t r
        past, initial = (None, None) if state is None else (state.inputs, state.hidden.to(working_dtype(inputs)))
        inputs = inputs if past is None else as_kept(inputs, past)
        hidden = self.recurrence(self.conv(inputs, context, past), context, initial)
        y = self.o(hidden.to(gate.dtype) * gate)
        return y, None if state is None else self._after(state, hidden, inputs)

    def _after(self, state: RecurrentState, hidden: Tensor, inputs: Tensor) -> RecurrentState:
        """Copies: views would keep the whole call's tensors alive."""
        kept = self.spec.taps - 1
        seen = torch.cat([state.inputs, inputs.to(state.inputs.dtype)], dim=1)
        return RecurrentState(hidden[:, -1].clone(), seen[:, -kept:].clone())

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> RecurrentState:
        inputs = torch.zeros(batch, self.spec.taps - 1, self.channels, device=device, dtype=dtype)
        return RecurrentState(torch.zeros_like(inputs[:, 0], dtype=working_dtype(inputs)), inputs)

    def costs(self, length: int) -> list[Cost]:
        projections = sum(linear.operations for linear in (self.y, self.x, self.o))
        convolution = Cost("convolution", elementwise=2.0 * self.spec.taps * self.channels)
        return [
            Cost.matmul("recurrent projections", projections, 2.0 * self.channels),
            convolution,
            *self.recurrence.costs(length),
        ]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return self.channels * (max(element, 4) + (self.spec.taps - 1) * element)


class ConvolutionLayer(Layer):
    """The causal depth-wise convolution, in float32 or wider: its output is the recurrence's input."""

    mechanism = "convolution"

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.weight = self.declare("weight", (width, taps), Role("filter", fan_in=taps, deviation=(0.01 / taps) ** 0.5))
        self.bias = self.declare("bias", (width,), Role("bias", constant=0.0))

    def forward(self, x: Tensor, context: Context, past: Tensor | None) -> Tensor:
        dtype = working_dtype(x)
        past = None if past is None else past.to(dtype)
        return causal_conv(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype), past, context.documents)
