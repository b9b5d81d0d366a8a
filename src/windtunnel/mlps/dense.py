"""Dense and gated MLPs, and nGPT's scaled one."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.layer import Context, Cost, MLPLayer, MLPOutput
from windtunnel.mlps.base import MLP
from windtunnel.norms import Scale

Activation = Literal["silu", "gelu", "gelu_tanh", "gelu_sigmoid", "relu"]


def activate(x: Tensor, activation: Activation) -> Tensor:
    """The named non-linearity; "gelu_tanh" is the tanh approximation (GPT-2's "gelu_new"), "gelu_sigmoid" the other of
    Hendrycks and Gimpel 2016 (section 2), x sigmoid(1.702 x)."""
    if activation == "silu":
        return F.silu(x)
    if activation == "gelu_sigmoid":
        return x * torch.sigmoid(1.702 * x)
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class Dense(MLP):
    """W₂ act(W₁ x + b₁) + b₂."""

    hidden: int
    activation: Activation = "gelu_tanh"
    bias: bool = True

    def validate(self) -> None:
        self.require(self.hidden > 0, f"hidden must be positive, got {self.hidden}")

    def build(self, width: int) -> "DenseLayer":
        return DenseLayer(self, width)


class DenseLayer(MLPLayer):
    def __init__(self, spec: Dense, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.up = Linear(width, spec.hidden, "reads", spec.bias)
        self.down = Linear(spec.hidden, width, "writes", spec.bias)

    def forward(self, x: Tensor, context: Context, route: Any = None) -> MLPOutput:
        return MLPOutput(self.down(activate(self.up(x), self.spec.activation)))

    def costs(self, length: int) -> list[Cost]:
        return [Cost.matmul("MLP", self.up.operations + self.down.operations, self.spec.hidden)]


class Gated(MLP):
    """W_down (act(W_gate x) ⊙ W_up x) (Shazeer 2020: SwiGLU with silu, GeGLU with gelu). bias: on all three."""

    hidden: int
    activation: Activation = "silu"
    bias: bool = False

    def validate(self) -> None:
        self.require(self.hidden > 0, f"hidden must be positive, got {self.hidden}")

    def build(self, width: int) -> "GatedLayer":
        return GatedLayer(self, width)


class GatedLayer(MLPLayer):
    def __init__(self, spec: Gated, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.gate = Linear(width, spec.hidden, "reads", spec.bias)
        self.up = Linear(width, spec.hidden, "reads", spec.bias)
        self.down = Linear(spec.hidden, width, "writes", spec.bias)

    def forward(self, x: Tensor, context: Context, route: Any = None) -> MLPOutput:
        return MLPOutput(self.down(activate(self.gate(x), self.spec.activation) * self.up(x)))

    def costs(self, length: int) -> list[Cost]:
        operations = self.gate.operations + self.up.operations + self.down.operations
        return [Cost.matmul("MLP", operations, 2 * self.spec.hidden)]


class NormalizedGated(Gated):
    """nGPT's SwiGLU: u = (W_u h) ⊙ s_u, ν = (W_ν h) ⊙ s_ν √width, W_down (u ⊙ SiLU(ν)) (eq. 20-21).

    up_scale and gate_scale are s_u and s_ν. The block output is normalised, so a global factor on u cancels.
    """

    up_scale: Scale | None = Scale(rate=1.0)
    gate_scale: Scale | None = Scale(rate=1.0)

    def validate(self) -> None:
        super().validate()
        self.require(not self.bias, "bias must be False: what nGPT scales are rows of matrices")

    def build(self, width: int) -> "NormalizedGatedLayer":
        return NormalizedGatedLayer(self, width)


class NormalizedGatedLayer(GatedLayer):
    def __init__(self, spec: NormalizedGated, width: int) -> None:
        super().__init__(spec, width)
        self.root = math.sqrt(width)
        self.up_scale = spec.up_scale.build(spec.hidden, width) if spec.up_scale is not None else None
        self.gate_scale = spec.gate_scale.build(spec.hidden, width) if spec.gate_scale is not None else None

    def forward(self, x: Tensor, context: Context, route: Any = None) -> MLPOutput:
        if x.shape[1] == 1 and not torch.is_grad_enabled():  # decoding: [b 1 f] is smaller than the weights
            inner = self.gate(x) * self.root
            inner = inner if self.gate_scale is None else inner * self.gate_scale()
            rest = self.up(x) if self.up_scale is None else self.up(x) * self.up_scale()
            return MLPOutput(self.down(activate(inner, self.spec.activation) * rest))
        # The scales are folded into the weights: (W x) ⊙ s = (s ⊙ rows of W) x, without touching [b t f].
        gate = self.gate.weight * self.root if self.gate_scale is None else self._scaled(self.gate, self.gate_scale())
        up = self.up.weight if self.up_scale is None else self.up.weight * self.up_scale()[:, None]
        return MLPOutput(self.down(activate(F.linear(x, gate), self.spec.activation) * F.linear(x, up)))

    def _scaled(self, linear: Linear, scale: Tensor) -> Tensor:
        return linear.weight * (scale * self.root)[:, None]
