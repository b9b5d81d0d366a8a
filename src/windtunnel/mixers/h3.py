"""H3, two state-space models with products between them (Fu et al. 2022, arXiv 2212.14052, section 3)."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.init import Linear, uniform
from windtunnel.kernels.causal_conv import causal_conv
from windtunnel.kernels.diagonal_ssm import causal_convolution, diagonal_ssm, document_segments, impulse_response
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, MixerLayer, Role
from windtunnel.mixers.base import Mixer, as_kept
from windtunnel.mixers.convolution import newest

SHORTEST_STEP, LONGEST_STEP = 1e-3, 1e-1


class H3(Mixer):
    """W_o (q · (diagonal(k̄ ⊗ v) + D k̄ ⊗ v)) with k̄ = shift(k) + D_k ⊙ k; q, k, v and o have biases.

    shift: a state that is a delay line of `state` tokens, read by C after B put the token in; a causal filter whose
    taps are the correlation of B and C. diagonal: S4D-Lin with state / 2 complex modes, discretised bilinearly, one for
    each head. heads: of width / heads each, where k̄ ⊗ v is an outer product; with as many heads as the width (the
    authors' language models) a plain one. Queries meet the index of k.
    """

    heads: int
    state: int = 64

    def validate(self) -> None:
        self.require(self.heads > 0, f"heads must be positive, got {self.heads}")
        self.require(self.state > 0 and self.state % 2 == 0, f"state must be positive and even, got {self.state}")

    def build(self, width: int) -> "H3Layer":
        return H3Layer(self, width)


class H3State(NamedTuple):
    """past: the last keys [b state-1 d]. modes: [b n h e 2], real and imaginary parts, float32 or wider."""

    past: Tensor
    modes: Tensor


def draw_first(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """The first unit vector in each row: a token enters the delay line at its beginning."""
    return F.one_hot(torch.zeros(shape[0], dtype=torch.int64), shape[1]).float()


def draw_one(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """The complex number 1 as (1, 0), B of S4D-Lin."""
    return torch.tensor([1.0, 0.0]).expand(shape)


def draw_frequencies(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """π n for the modes n = 0, 1, .. of every head (S4D-Lin, Gu et al. 2022, arXiv 2206.11893, eq. 9)."""
    return (math.pi * torch.arange(shape[1], dtype=torch.float32)).repeat(shape[0], 1)


class H3Layer(MixerLayer):
    mechanism = "recurrence projections"

    def __init__(self, spec: H3, width: int) -> None:
        super().__init__()
        spec.require(width % spec.heads == 0, f"heads {spec.heads} does not divide width {width}")
        self.spec, self.width, self.heads, self.taps = spec, width, spec.heads, spec.state
        self.head_width, self.modes = width // spec.heads, spec.state // 2
        self.q, self.k, self.v = (Linear(width, width, "reads", bias=True) for _ in range(3))
        self.o = Linear(width, width, "writes", bias=True)
        edge = 1 / math.sqrt(self.taps)
        self.shift_into = self.declare("shift_into", (width, self.taps), Role("decay", draw=draw_first))
        self.shift_out = self.declare("shift_out", (width, self.taps), Role("filter", draw=uniform(-edge, edge)))
        self.shift_skip = self.declare("shift_skip", (width,), Role("gain", deviation=1.0))
        logs = uniform(math.log(SHORTEST_STEP), math.log(LONGEST_STEP))
        h, n = self.heads, self.modes
        self.log_step = self.declare("log_step", (h,), Role("decay", draw=logs))
        self.log_rate = self.declare("log_rate", (h, n), Role("decay", constant=math.log(0.5)))
        self.frequency = self.declare("frequency", (h, n), Role("decay", draw=draw_frequencies))
        self.into = self.declare("into", (h, n, 2), Role("decay", draw=draw_one))
        self.out_of = self.declare("out_of", (h, n, 2), Role("filter", deviation=math.sqrt(0.5)))
        self.skip = self.declare("skip", (h,), Role("gain", deviation=1.0))

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        dtype = working_dtype(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        delayed = k if state is None else as_kept(k, state.past)
        shifted = self.shift(delayed.to(dtype), context, state) + self.shift_skip * k  # b t d
        products = self.split(shifted)[..., None] * self.split(v.to(dtype))[..., None, :]  # b t h k e
        mixed, modes = self.diagonal(products.flatten(3), context, state)
        mixed = mixed.view_as(products) + self.skip[:, None, None] * products
        y = (self.split(q)[..., None] * mixed).sum(3).flatten(2).to(x.dtype)
        if modes is None:
            return self.o(y), None
        return self.o(y), H3State(newest(state.past, k), torch.view_as_real(modes))

    def split(self, x: Tensor) -> Tensor:
        """[b t d] to [b t h k]."""
        return x.view(*x.shape[:2], self.heads, self.head_width)

    def shift(self, k: Tensor, context: Context, state: Any) -> Tensor:
        """The delay line's output [b t d]: with a state tap by tap, else by FFT."""
        kernel = self.shift_kernel(k.dtype)
        if state is None:
            return causal_convolution(k, kernel, self.segments(context))
        return causal_conv(k, kernel.flip(0).T, past=state.past.to(k.dtype))

    def shift_kernel(self, dtype: torch.dtype) -> Tensor:
        """[s d]: K_s = Σ_i B_i C_{i+s}; a token that entered at place i is at place i + s after s steps."""
        later = F.pad(self.shift_out.to(dtype), (0, self.taps - 1)).unfold(1, self.taps, 1)  # d s i
        return (later * self.shift_into.to(dtype)[:, None]).sum(2).T

    def diagonal(self, x: Tensor, context: Context, state: Any) -> tuple[Tensor, Tensor | None]:
        """The diagonal model's output for x [b t h e], and its modes if there is a state."""
        poles, weights = self.discretized(x.dtype)
        if state is not None:
            return diagonal_ssm(x, poles, weights, torch.view_as_complex(state.modes.to(x.dtype)))
        kernel = impulse_response(poles, weights, x.shape[1])
        return causal_convolution(x, kernel[..., None], self.segments(context)), None

    def discretized(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Ā = (1 + ΔA/2) / (1 - ΔA/2) and C ⊙ B̄ with B̄ = ΔB / (1 - ΔA/2): complex, [h n]."""
        step = torch.exp(self.log_step.to(dtype))[:, None]
        half = torch.complex(-torch.exp(self.log_rate.to(dtype)), self.frequency.to(dtype)) * (step / 2)
        into, out_of = (torch.view_as_complex(each.to(dtype)) for each in (self.into, self.out_of))
        below = 1 + -half  # inductor has no complex number less a tensor
        return (1 + half) / below, out_of * into * step / below

    @staticmethod
    def segments(context: Context) -> list[tuple[Tensor, Tensor]] | None:
        """The documents of this pass, found once."""
        if context.documents is None:
            return None
        if "segments" not in context.tables:
            context.tables["segments"] = document_segments(context.documents)
        found: list[tuple[Tensor, Tensor]] = context.tables["segments"]
        return found

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> H3State:
        wide = torch.promote_types(dtype, torch.float32)
        shape = (batch, self.modes, self.heads, self.head_width**2, 2)
        past = torch.zeros(batch, self.taps - 1, self.width, device=device, dtype=dtype)
        return H3State(past, torch.zeros(shape, device=device, dtype=wide))

    def costs(self, length: int) -> list[Cost]:
        """Of the recurrent form: 8 operations a mode for its complex multiply-add, 4 to read its real part."""
        products = self.width * self.head_width
        linears = sum(linear.operations for linear in (self.q, self.k, self.v, self.o))
        return [
            Cost.matmul("recurrence projections", linears, 5.0 * products + 2.0 * self.width),
            Cost("convolution", elementwise=2.0 * self.taps * self.width),
            Cost("scan", elementwise=12.0 * self.modes * products),
        ]

    def state_bytes(self, length: int, element: int = 4) -> int:
        modes = 2 * self.modes * self.width * self.head_width
        return (self.taps - 1) * self.width * element + modes * max(element, 4)
