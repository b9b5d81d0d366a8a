"""The Real-Gated Linear Recurrent Unit (De et al. 2024, Griffin, arXiv 2402.19427, section 2.4)."""

from typing import Literal

import torch
from torch import Tensor

from windtunnel.kernels.gated_decay import gated_decay
from windtunnel.kernels.linear_scan import linear_scan
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, Layer, Role
from windtunnel.spec import Spec

_RANGE = (0.9, 0.999)


class RGLRU(Spec):
    """h_t = a_t ⊙ h_{t-1} + sqrt(1 - a_t²) ⊙ (i_t ⊙ x_t), a_t = σ(Λ)^(power r_t), gates r_t, i_t = σ(W x_t + b).

    blocks: of the block-diagonal gates; 16 in the paper, the number of heads in the released configurations.
    memory: how Λ starts. "code" (the authors' code and all released weights): σ(Λ)² uniform in [0.9², 0.999²]. "text"
    (section 2.4): σ(Λ)^power uniform in [0.9, 0.999], which remembers ten times longer. "code" is the default because
    it is the one that published models were seen to start from.
    The stored parameter is the code's, -Λ. Decay, γ and the recurrence are computed in float32 or wider whatever the
    input, the state is kept in it. The first token of every document enters with a = 0 and γ = 1.
    """

    blocks: int = 16
    power: float = 8.0
    memory: Literal["code", "text"] = "code"

    def validate(self) -> None:
        self.require(self.blocks > 0, f"blocks must be positive, got {self.blocks}")
        self.require(self.power > 0, f"power must be positive, got {self.power}")

    def build(self, width: int) -> "RGLRULayer":
        """The module for `width` channels."""
        self.require(width % self.blocks == 0, f"blocks {self.blocks} does not divide the recurrence's width {width}")
        return RGLRULayer(self, width)

    def draw(self, shape: torch.Size, stream: torch.Generator) -> Tensor:
        """Initial values of -Λ."""
        low, high = (bound**2 if self.memory == "code" else bound for bound in _RANGE)
        drawn = low + (high - low) * torch.rand(shape, generator=stream, dtype=torch.float64)
        decay = drawn ** (1 / (2 if self.memory == "code" else self.power))
        return (1 / decay - 1).log()


class RGLRULayer(Layer):
    mechanism = "recurrence"

    def __init__(self, spec: RGLRU, width: int) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        self.decay = self.declare("decay", (width,), Role("decay", draw=spec.draw))
        self.decay_gate = BlockDiagonalLayer(width, spec.blocks)
        self.input_gate = BlockDiagonalLayer(width, spec.blocks)

    def forward(self, x: Tensor, context: Context, initial: Tensor | None = None) -> Tensor:
        """States [b t r] in float32 or wider, from inputs [b t r] and the state before them [b r] (None: zero)."""
        dtype = working_dtype(x)
        decay_gate, input_gate = self.decay_gate(x).to(dtype), self.input_gate(x).to(dtype)
        parameter, power = self.decay.to(dtype), self.spec.power
        decay, inputs = gated_decay(decay_gate, input_gate, x.to(dtype), parameter, power, resets(context))
        return linear_scan(decay, inputs, initial)

    def costs(self, length: int) -> list[Cost]:
        gates = 2 * 2.0 * self.width * (self.width // self.spec.blocks)
        return [Cost.matmul("recurrence", gates, 16.0 * self.width)]


def resets(context: Context) -> Tensor:
    """[1 t 1] or [b t 1], True at the first token of each document and of the whole sequence."""
    first = (context.positions == 0).reshape(-1, context.positions.shape[-1], 1)
    return first if context.starts is None else first | context.starts[:, :, None]


class BlockDiagonalLayer(Layer):
    """y = x W + b with W block-diagonal: weight [blocks, inputs, outputs], bias [width]."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        size = width // blocks
        self.weight = self.declare("weight", (blocks, size, size), Role("inner", fan_in=size))
        self.bias = self.declare("bias", (width,), Role("bias", constant=0.0))

    def forward(self, x: Tensor) -> Tensor:
        parts = x.to(self.weight.dtype).reshape(-1, *self.weight.shape[:2]).transpose(0, 1)  # blocks n inputs
        y = torch.bmm(parts, self.weight).transpose(0, 1)  # n blocks outputs
        return y.reshape(x.shape) + self.bias
