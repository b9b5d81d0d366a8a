"""Griffin's recurrent block (De et al. 2024, arXiv 2402.19427, section 2.3)."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, MixerLayer, Role
from windtunnel.mixers.base import Mixer
from windtunnel.mixers.convolution import ConvolutionLayer
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
        taps = Role("filter", fan_in=spec.taps, deviation=(0.01 / spec.taps) ** 0.5)
        self.conv = ConvolutionLayer(self.channels, taps, bias=True)
        self.recurrence = spec.recurrence.build(self.channels)
        self.o = Linear(self.channels, width, "writes", bias=True)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        gate, inputs = F.gelu(self.y(x), approximate="tanh"), self.x(x)  # b t r
        past, initial = (None, None) if state is None else (state.inputs, state.hidden.to(working_dtype(inputs)))
        convolved, past = self.conv(inputs, context, past)
        hidden = self.recurrence(convolved, context, initial)
        y = self.o(hidden.to(gate.dtype) * gate)
        # A copy: a view would keep the whole call's tensors alive.
        return y, None if past is None else RecurrentState(hidden[:, -1].clone(), past)

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
