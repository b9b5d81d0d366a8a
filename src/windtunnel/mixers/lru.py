"""The linear recurrent unit (Orvieto et al. 2023, arXiv 2303.06349, section 3)."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels.linear_scan import linear_scan
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, MixerLayer, Role
from windtunnel.mixers.base import Mixer

_SMALLEST = 2.0**-25  # below the steps of a float32 draw, so that no logarithm is infinite


class LRU(Mixer):
    """h_t = λ ⊙ h_{t-1} + γ ⊙ (B u_t),  y_t = Re(C h_t) + D ⊙ u_t,  then GELU and a gated linear unit.

    λ = exp(-exp(ν) + i exp(θ)) and γ = exp(log γ) are learned and do not depend on the input (section 3.3, appendix A).
    λ starts uniformly on the ring r_min <= |λ| <= r_max with phases in [0, phase_max], γ at sqrt(1 - |λ|²).
    hidden: complex numbers in the state. GLU: a ⊙ σ(b), both linear with biases, as in the paper's block (figure 1).
    """

    hidden: int
    r_min: float = 0.0
    r_max: float = 1.0
    phase_max: float = 2 * math.pi

    def validate(self) -> None:
        self.require(self.hidden > 0, f"hidden must be positive, got {self.hidden}")
        ordered = 0 <= self.r_min < self.r_max <= 1
        self.require(ordered, f"0 <= r_min < r_max <= 1 must hold, got {self.r_min} and {self.r_max}")
        self.require(self.phase_max > 0, f"phase_max must be positive, got {self.phase_max}")

    def build(self, width: int) -> "LRULayer":
        return LRULayer(self, width)

    def draw_modes(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """ν, θ and log γ [3 n]: |λ|² uniform in [r_min², r_max²] (lemma 3.2), the phase uniform, γ² = 1 - |λ|²."""
        squared, phase = torch.rand(2, *shape[1:], generator=generator, dtype=torch.float64).clamp(min=_SMALLEST)
        squared = squared * (self.r_max**2 - self.r_min**2) + self.r_min**2
        rate, angle = -0.5 * squared.log(), phase * self.phase_max
        return torch.stack([rate.log(), angle.log(), 0.5 * torch.log1p(-squared)]).float()


class LRUState(NamedTuple):
    """hidden: h [b h 2], real and imaginary parts, float32 or wider."""

    hidden: Tensor


class LRULayer(MixerLayer):
    mechanism = "recurrence projections"

    def __init__(self, spec: LRU, width: int) -> None:
        super().__init__()
        self.spec, self.width, self.hidden = spec, width, spec.hidden
        n = spec.hidden
        self.modes = self.declare("modes", (3, n), Role("decay", draw=spec.draw_modes))
        into = Role("reads", fan_in=width, deviation=1 / math.sqrt(2 * width))
        self.into_real = self.declare("into_real", (n, width), into)
        self.into_imaginary = self.declare("into_imaginary", (n, width), into)
        out_of = Role("inner", fan_in=n, deviation=1 / math.sqrt(n))
        self.out_of_real = self.declare("out_of_real", (width, n), out_of)
        self.out_of_imaginary = self.declare("out_of_imaginary", (width, n), out_of)
        self.skip = self.declare("skip", (width,), Role("gain", deviation=1.0))
        self.value = Linear(width, width, "writes", bias=True)
        self.gate = Linear(width, width, "inner", bias=True)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        dtype = working_dtype(x)
        decay, scale = self.decay(dtype)
        inputs = scale * torch.complex(
            F.linear(x, self.into_real).to(dtype), F.linear(x, self.into_imaginary).to(dtype)
        )  # b t n
        decays = decay.expand_as(inputs)
        if context.starts is not None:
            decays = torch.where(context.starts[..., None], 0.0, decays)
        h = linear_scan(decays, inputs, torch.view_as_complex(state.hidden.to(dtype)) if state is not None else None)
        real, imaginary = h.real.to(x.dtype), h.imag.to(x.dtype)
        y = F.linear(real, self.out_of_real) - F.linear(imaginary, self.out_of_imaginary) + self.skip * x
        active = F.gelu(y, approximate="tanh")
        kept = LRUState(torch.view_as_real(h[:, -1])) if state is not None else None
        return self.value(active) * torch.sigmoid(self.gate(active)), kept

    def decay(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """λ, complex, and γ, real: [n] each, computed in `dtype`."""
        log_rate, log_phase, log_scale = self.modes.to(dtype)
        return torch.polar(torch.exp(-torch.exp(log_rate)), torch.exp(log_phase)), torch.exp(log_scale)

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> LRUState:
        wide = torch.promote_types(dtype, torch.float32)
        return LRUState(torch.zeros(batch, self.hidden, 2, device=device, dtype=wide))

    def costs(self, length: int) -> list[Cost]:
        """A complex step of the scan is 8 real operations, the scaling of its input 2."""
        matrices = 8.0 * self.width * self.hidden + self.value.operations + self.gate.operations
        return [
            Cost.matmul("recurrence projections", matrices, 6.0 * self.width),
            Cost("scan", elementwise=10.0 * self.hidden),
        ]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return 2 * self.hidden * max(element, 4)
