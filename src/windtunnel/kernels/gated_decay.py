"""What the gates of an RG-LRU make of its decay and its input (Griffin, arXiv 2402.19427, eq. 1-4).

    r = σ(G_a)     i = σ(G_x)     log a = -c r softplus(Λ)     γ = sqrt(1 - a²)     u = γ (i x)

and h_t = a_t h_{t-1} + u_t. At the first token of a document a = 0 and γ = 1: it enters as it is. Λ here is the stored
number of the authors' code, a = σ(-Λ)^(c r): the negative of the paper's.

1 - a² = -expm1(2 log a): 1 - exp loses γ altogether where a decay is nearly 1. The derivative of the square root is cut
off at 1000, as in the authors' code: a decay may round to 1.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.routing import by_hand

STEEPEST = 1000.0  # largest derivative of the square root
_SMALLEST = 1 / (2 * STEEPEST)  # the root below which the cut-off acts


class _BoundedRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root: Tensor = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        slope: Tensor = gradient / (2 * root.clamp(min=_SMALLEST))
        return slope


def bounded_root(x: Tensor) -> Tensor:
    """sqrt(x) with min(1 / (2 sqrt(x)), 1000) for its derivative, also at 0."""
    return _BoundedRoot.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def gated_decay_reference(
    decay_gate: Tensor, input_gate: Tensor, x: Tensor, parameter: Tensor, power: float, resets: Tensor
) -> tuple[Tensor, Tensor]:
    """The equations, in plain torch."""
    log_decay = -power * torch.sigmoid(decay_gate) * F.softplus(parameter)
    gamma = bounded_root(-torch.expm1(2 * log_decay))
    decay, gamma = log_decay.exp().masked_fill(resets, 0.0), gamma.masked_fill(resets, 1.0)
    return decay, gamma * (torch.sigmoid(input_gate) * x)


class _GatedDecay(torch.autograd.Function):
    """d log a = a (da - a dγ / max(γ, 1/2000)), which is 0 at resets, where a = 0."""

    @staticmethod
    def forward(
        ctx: Any, decay_gate: Tensor, input_gate: Tensor, x: Tensor, parameter: Tensor, power: float, resets: Tensor
    ) -> tuple[Tensor, Tensor]:
        r, i = torch.sigmoid(decay_gate), torch.sigmoid(input_gate)
        log_decay = r * (-power * F.softplus(parameter))
        gamma = torch.expm1(2 * log_decay).neg_().sqrt_().masked_fill_(resets, 1.0)
        decay = log_decay.exp_().masked_fill_(resets, 0.0)
        ctx.save_for_backward(r, i, x, parameter, decay, gamma)
        ctx.power = power
        return decay, (gamma * i).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_decay: Tensor, d_input: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        r, i, x, parameter, decay, gamma = ctx.saved_tensors
        scaled = d_input * i  # b t d
        d_x = scaled * gamma
        d_input_gate = (d_x * x).mul_(1 - i)  # di i (1 - i), of which d_x x = di i
        slope = scaled.mul_(x).mul_(decay).div_(gamma.clamp(min=_SMALLEST))
        d_log_decay = torch.sub(d_decay, slope, out=slope).mul_(decay)
        d_log_decay = d_log_decay.mul_(r)
        d_parameter = d_log_decay.sum((0, 1)) * (-ctx.power * torch.sigmoid(parameter))
        d_decay_gate = d_log_decay.mul_(1 - r).mul_(-ctx.power * F.softplus(parameter))
        return d_decay_gate, d_input_gate, d_x, d_parameter, None, None


def gated_decay(
    decay_gate: Tensor, input_gate: Tensor, x: Tensor, parameter: Tensor, power: float, resets: Tensor
) -> tuple[Tensor, Tensor]:
    """a and u [b t d], for `linear_scan`, from the gates before their sigmoid [b t d] and the input [b t d].

    parameter: Λ [d]. resets: bool, broadcast to [b t d], True where a document begins. All in float32 or wider.
    """
    if not by_hand(x):
        return gated_decay_reference(decay_gate, input_gate, x, parameter, power, resets)
    return _GatedDecay.apply(  # type: ignore[no-any-return, no-untyped-call]
        decay_gate, input_gate, x, parameter, power, resets
    )
