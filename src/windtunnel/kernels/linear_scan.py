"""The linear recurrence h_t = a_t ⊙ h_{t-1} + x_t over a sequence (Griffin, arXiv 2402.19427, section 2.4).

The adjoint is the same recurrence backwards with the decay of the next step: with g = dL/dh,

    δ_t = g_t + a*_{t+1} ⊙ δ_{t+1}     dL/dx_t = δ_t     dL/da_t = δ_t ⊙ h*_{t-1}     dL/dh_0 = a*_1 ⊙ δ_1

(* conjugates, for complex recurrences). A decay of zero is a reset and exact: nothing is divided by a decay.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from windtunnel.kernels import scan_native
from windtunnel.kernels.scan_segments import scan_segments

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
    On a CPU in plain torch, or where WINDTUNNEL_COMPILED_SCAN=1 as a compiled operator (`scan_native`); on CUDA in
    Triton, which has not been run on a GPU yet.
    """
    _check(decay, inputs, initial)
    if not inputs.shape[1]:
        return inputs
    if inputs.shape[1] == 1 and not torch.is_grad_enabled():  # decoding
        return inputs if initial is None else inputs + decay * initial.unsqueeze(1)  # inductor has no complex addcmul
    states: Tensor = _scan(decay, inputs, initial)
    return states


# Operators of their own, so that a compiler takes each as one call instead of unrolling the sequence.
@torch.library.custom_op("windtunnel::linear_scan", mutates_args=())
def _scan(decay: Tensor, inputs: Tensor, initial: Tensor | None) -> Tensor:
    states = torch.empty_like(inputs, memory_format=torch.contiguous_format)
    module = _compiled(inputs)
    if module is not None:
        module.forward(decay, inputs, initial, states)
    else:
        scan_segments(decay, inputs, initial, states)
    return states


@torch.library.custom_op("windtunnel::linear_scan_adjoint", mutates_args=())
def _adjoint(decay: Tensor, states: Tensor, initial: Tensor | None, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """dL/da and dL/dx, which is δ."""
    d_decay, d_inputs = torch.empty_like(states), torch.empty_like(states)
    module = _compiled(states)
    if module is not None:
        module.adjoint(decay, states, initial, gradient, d_decay, d_inputs)
        return d_decay, d_inputs
    decay, states = decay.conj().resolve_conj(), states.conj().resolve_conj()
    last = gradient[:, -1]
    d_inputs[:, -1] = last
    delta, before, slope = d_inputs[:, 1:], states[:, :-1], d_decay[:, 1:]

    def multiply(span: slice) -> None:
        torch.mul(delta[:, span], before[:, span], out=slope[:, span])

    scan_segments(decay[:, 1:], gradient[:, :-1], last, d_inputs[:, :-1], reverse=True, finished=multiply)
    d_decay[:, 0] = 0 if initial is None else d_inputs[:, 0] * initial.conj()
    return d_decay, d_inputs


def _compiled(x: Tensor) -> ModuleType | None:
    """The module that holds a compiled operator for x, if there is one."""
    if scan_native.wanted(x):
        return scan_native
    if x.is_cuda and not x.is_complex() and importlib.util.find_spec("triton") is not None:
        return importlib.import_module("windtunnel.kernels.scan_triton")
    return None


@_scan.register_fake
def _(decay: Tensor, inputs: Tensor, initial: Tensor | None) -> Tensor:
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


@_adjoint.register_fake
def _(decay: Tensor, states: Tensor, initial: Tensor | None, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(states), torch.empty_like(states)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    decay, _, initial = inputs
    ctx.save_for_backward(decay, output, initial)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    decay, states, initial = ctx.saved_tensors
    d_decay, d_inputs = _adjoint(decay, states, initial, gradient)
    return d_decay, d_inputs, None if initial is None else decay[:, 0].conj() * d_inputs[:, 0]


_scan.register_autograd(_backward, setup_context=_keep)


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
