"""The linear recurrence h_t = a_t ⊙ h_{t-1} + x_t over a sequence (Griffin, arXiv 2402.19427, section 2.4).

The adjoint is the same recurrence backwards with the decay of the next step: with g = dL/dh,

    δ_t = g_t + a*_{t+1} ⊙ δ_{t+1}     dL/dx_t = δ_t     dL/da_t = δ_t ⊙ h*_{t-1}     dL/dh_0 = a*_1 ⊙ δ_1

(* conjugates, for complex recurrences). A decay of zero is a reset and exact: nothing is divided by a decay.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def linear_scan_reference(decay: Tensor, inputs: Tensor, initial: Tensor | None = None) -> Tensor:
    """The equation, one step after another."""
    h = torch.zeros_like(inputs[:, 0]) if initial is None else initial
    states = []
    for step in range(inputs.shape[1]):
        h = decay[:, step] * h + inputs[:, step]
        states.append(h)
    return torch.stack(states, dim=1) if states else inputs


def linear_scan(decay: Tensor, inputs: Tensor, initial: Tensor | None = None) -> Tensor:
    """All states [b t d] of h_t = decay_t ⊙ h_{t-1} + inputs_t; the last, [:, -1], is what a later call starts from.

    decay, inputs: [b t d] of one dtype, float32 or wider or complex (a decay near 1 does not survive bfloat16, whose
    numbers below 1 lie 1/256 apart). decay may be expanded. initial: h_0 [b d]; None is zero.
    """
    _check(decay, inputs, initial)
    return _LinearScan.apply(decay, inputs, initial)  # type: ignore[no-any-return, no-untyped-call]


class _LinearScan(torch.autograd.Function):
    """One fused multiply-add a step, forwards and backwards; only decay and states are kept."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor, initial: Tensor | None) -> Tensor:
        states = _scan(decay, inputs, initial)
        ctx.save_for_backward(decay, states, initial)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        decay, states, initial = ctx.saved_tensors
        return _adjoint(decay, states, initial, gradient)


def _scan(decay: Tensor, inputs: Tensor, initial: Tensor | None) -> Tensor:
    states = torch.empty(inputs.shape, dtype=inputs.dtype, device=inputs.device)
    h = torch.zeros_like(inputs[:, 0]) if initial is None else initial
    for a, x, out in zip(decay.unbind(1), inputs.unbind(1), states.unbind(1), strict=True):
        h = torch.addcmul(x, a, h, out=out)
    return states


def _adjoint(
    decay: Tensor, states: Tensor, initial: Tensor | None, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    decay, states = decay.conj().resolve_conj(), states.conj().resolve_conj()
    d_inputs = torch.empty_like(states)
    slices = [tensor.unbind(1) for tensor in (decay, gradient, d_inputs)]
    following, delta = torch.zeros_like(states[:, 0]), torch.zeros_like(states[:, 0])
    for a, g, out in zip(*(reversed(each) for each in slices), strict=True):
        delta = torch.addcmul(g, following, delta, out=out)
        following = a
    d_decay = torch.empty_like(states)
    torch.mul(d_inputs[:, 1:], states[:, :-1], out=d_decay[:, 1:])
    if initial is None:
        d_decay[:, 0] = 0
        return d_decay, d_inputs, None
    d_decay[:, 0] = delta * initial.conj()
    return d_decay, d_inputs, following * delta


def _check(decay: Tensor, inputs: Tensor, initial: Tensor | None) -> None:
    if inputs.dtype not in _DTYPES:
        raise ValueError(f"linear_scan: expected inputs of {_DTYPES}, got {inputs.dtype}")
    if inputs.dim() != 3 or decay.shape != inputs.shape or decay.dtype != inputs.dtype:
        raise ValueError(
            f"linear_scan: decay {tuple(decay.shape)} of {decay.dtype} and inputs {tuple(inputs.shape)} of"
            f" {inputs.dtype} must both be [batch, time, channels] of one dtype"
        )
    if initial is not None and (initial.shape != inputs[:, 0].shape or initial.dtype != inputs.dtype):
        raise ValueError(f"linear_scan: initial must be [batch, channels] of {inputs.dtype}, got {initial.shape}")
