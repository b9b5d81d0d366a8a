"""Mamba's selective state-space block (Gu and Dao 2023, arXiv 2312.00752, section 3)."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.init import Linear, uniform
from windtunnel.kernels.causal_conv import causal_conv
from windtunnel.kernels.routing import working_dtype
from windtunnel.kernels.selective_scan import selective_scan
from windtunnel.layer import Context, Cost, MixerLayer, Role
from windtunnel.mixers.base import Mixer, as_kept
from windtunnel.mixers.convolution import newest

SHORTEST_STEP, LONGEST_STEP, STEP_FLOOR = 1e-3, 1e-1, 1e-4


class Mamba(Mixer):
    """out = W_out (y ⊙ SiLU(z)) with y the selective state-space model of u = SiLU(conv(W_u x)), z = W_z x.

        Δ = softplus(W_Δ W_δ u + b_Δ),  B = W_B u,  C = W_C u,  A = -exp(log A)
        S_t = exp(Δ_t A) ⊙ S_{t-1} + (Δ_t u_t) ⊗ B_t,  y_t = S_t C_t + D ⊙ u_t     (algorithm 2, figure 3)

    hidden: channels of u, z and y (the paper's 2 x width). state: numbers a channel. taps: of the causal convolution.
    rank: of Δ's projection; None is width / 16, rounded up.
    """

    hidden: int
    state: int = 16
    taps: int = 4
    rank: int | None = None

    def validate(self) -> None:
        for name, value in (("hidden", self.hidden), ("state", self.state), ("taps", self.taps), ("rank", self.rank)):
            self.require(value is None or value > 0, f"{name} must be positive, got {value}")

    def build(self, width: int) -> "MambaLayer":
        return MambaLayer(self, width)


class MambaState(NamedTuple):
    """past: the convolution's last inputs [b taps-1 d]. memory: S [b n d], float32 or wider."""

    past: Tensor
    memory: Tensor


def draw_log_rates(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """log n in column n = 1 .. N: -A starts at 1, 2, .. N in every channel (S4D-Real, section 3.6)."""
    return torch.arange(1, shape[1] + 1, dtype=torch.float32).log().repeat(shape[0], 1)


def draw_step_bias(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """softplus⁻¹(Δ) for Δ log-uniform in [0.001, 0.1], at least 0.0001 (section 3.6)."""
    logs = uniform(math.log(SHORTEST_STEP), math.log(LONGEST_STEP))(shape, generator)
    step = logs.exp().clamp(min=STEP_FLOOR)
    return step + torch.log(-torch.expm1(-step))


class MambaLayer(MixerLayer):
    mechanism = "recurrence projections"

    def __init__(self, spec: Mamba, width: int) -> None:
        super().__init__()
        self.spec, self.hidden, self.states, self.taps = spec, spec.hidden, spec.state, spec.taps
        self.rank = spec.rank or math.ceil(width / 16)
        d, edge = self.hidden, 1 / math.sqrt(spec.taps)
        self.u = Linear(width, d, "reads")
        self.z = Linear(width, d, "reads")
        self.conv_weight = self.declare("conv_weight", (d, spec.taps), Role("filter", fan_in=spec.taps))
        self.conv_bias = self.declare("conv_bias", (d,), Role("bias", draw=uniform(-edge, edge)))
        self.step_low = Linear(d, self.rank, "inner")
        self.into = Linear(d, self.states, "inner")
        self.out_of = Linear(d, self.states, "inner")
        bound = self.rank**-0.5
        role = Role("inner", fan_in=self.rank, draw=uniform(-bound, bound))
        self.step_weight = self.declare("step_weight", (d, self.rank), role)
        self.step_bias = self.declare("step_bias", (d,), Role("bias", draw=draw_step_bias))
        self.log_rates = self.declare("log_rates", (d, self.states), Role("decay", draw=draw_log_rates))
        self.skip = self.declare("skip", (d,), Role("gain", constant=1.0))
        self.out = Linear(d, width, "writes")

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        inner = self.u(x)  # b t d
        inner = inner if state is None else as_kept(inner, state.past)
        past = state.past.to(inner.dtype) if state is not None else None
        u = F.silu(causal_conv(inner, self.conv_weight, self.conv_bias, past, context.documents))
        memory = state.memory if state is not None else None
        y, memory = selective_scan(u, self.step(u), self.rates(u), self.into(u), self.out_of(u), memory, context.starts)
        mixed = self.out((y + self.skip * u).to(x.dtype) * F.silu(self.z(x)))
        if state is None:
            return mixed, None
        return mixed, MambaState(newest(state.past, inner), memory)

    def step(self, u: Tensor) -> Tensor:
        """Δ [b t d], float32 or wider."""
        dtype = working_dtype(u)
        low = F.linear(self.step_low(u), self.step_weight)
        return F.softplus(low.to(dtype) + self.step_bias.to(dtype))

    def rates(self, u: Tensor) -> Tensor:
        """A [d n], negative, float32 or wider."""
        return -torch.exp(self.log_rates.to(working_dtype(u)))

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> MambaState:
        wide = torch.promote_types(dtype, torch.float32)
        past = torch.zeros(batch, self.taps - 1, self.hidden, device=device, dtype=dtype)
        return MambaState(past, torch.zeros(batch, self.states, self.hidden, device=device, dtype=wide))

    def costs(self, length: int) -> list[Cost]:
        """Of the scan: Δ A, its exponential, Δ u B, a multiply-add for the state and one for the output."""
        linears = (self.u, self.z, self.step_low, self.into, self.out_of, self.out)
        matrices = sum(linear.operations for linear in linears) + 2.0 * self.hidden * self.rank
        return [
            Cost.matmul("recurrence projections", matrices, 7.0 * self.hidden),
            Cost("convolution", elementwise=2.0 * self.taps * self.hidden),
            Cost("scan", elementwise=7.0 * self.hidden * self.states),
        ]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return self.hidden * ((self.taps - 1) * element + self.states * max(element, 4))
