"""The selective state-space recurrence of Mamba (Gu and Dao 2023, arXiv 2312.00752, section 3.2 and algorithm 2).

    S_t = exp(Δ_t A) ⊙ S_{t-1} + (Δ_t u_t) ⊗ B_t          S: n numbers a channel
    y_t = Σ_n C_t,n S_t,n

with the simplified Euler rule for B, as in the authors' code. At a document start the decay is zero. In float32
(float64 for float64 inputs). The expansion to [b t n d] is formed for a piece of the sequence at a time, and formed
again in the backward pass; only the states between pieces are kept.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels.linear_scan import linear_scan
from windtunnel.kernels.routing import working_dtype

PIECE = 1 << 19  # numbers in one expanded piece: 2 MiB in float32, so that it stays in a cache


def selective_scan_reference(
    u: Tensor,
    step: Tensor,
    rates: Tensor,
    into: Tensor,
    out_of: Tensor,
    initial: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The equations, one token after another."""
    batch, length, width = u.shape
    state = u.new_zeros(batch, rates.shape[1], width) if initial is None else initial
    outputs = []
    for t in range(length):
        if starts is not None:
            state = torch.where(starts[:, t, None, None], 0.0, state)
        decay = torch.exp(step[:, t, None, :] * rates.T)  # b n d
        state = decay * state + into[:, t, :, None] * (step[:, t] * u[:, t])[:, None, :]
        outputs.append((out_of[:, t, :, None] * state).sum(1))
    return torch.stack(outputs, dim=1), state


def selective_scan(
    u: Tensor,
    step: Tensor,
    rates: Tensor,
    into: Tensor,
    out_of: Tensor,
    initial: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y [b t d] and the last state [b n d].

    u, step (Δ > 0): [b t d]. rates (A < 0): [d n]. into (B), out_of (C): [b t n]. initial: [b n d], None is zero.
    starts: [b t], True where the state is forgotten before the token is read.
    """
    dtype = working_dtype(u)
    if u.shape[1] == 1 and not torch.is_grad_enabled():  # decoding: there is nothing to cut into pieces
        before = None if initial is None else initial.to(dtype)
        return selective_scan_reference(
            u.to(dtype), step.to(dtype), rates.to(dtype), into.to(dtype), out_of.to(dtype), before, starts
        )
    if initial is None:
        initial = u.new_zeros(u.shape[0], rates.shape[1], u.shape[2], dtype=dtype)
    wide = [tensor.to(dtype) for tensor in (u, step, rates.T, into, out_of, initial)]
    kept = None if starts is None else (~starts).to(dtype)
    return _SelectiveScan.apply(*wide, kept)  # type: ignore[no-any-return, no-untyped-call]


class _Piece(NamedTuple):
    """A stretch of the sequence. u, step, gradient: [b t 1 d]; into, out_of: [b t n 1]; kept: [b t 1 1] or None."""

    u: Tensor
    step: Tensor
    into: Tensor
    out_of: Tensor
    kept: Tensor | None

    def expanded(self, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Decay and inputs [b t n d] of the linear recurrence."""
        decay = torch.mul(self.step, rates).exp_()
        if self.kept is not None:
            decay.mul_(self.kept)
        return decay, self.into * (self.step * self.u)


class _SelectiveScan(torch.autograd.Function):
    """With δ and dA the gradients of the recurrence's inputs and decays, and q = dA ⊙ decay:

    dΔ = Σ_n q A + u w, du = Δ w with w = Σ_n δ B;  dB = Σ_d δ Δ u;  dC = Σ_d S dy;  drates = Σ q Δ.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        step: Tensor,
        rates: Tensor,
        into: Tensor,
        out_of: Tensor,
        initial: Tensor,
        kept: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        y, state, boundaries = torch.empty_like(u), initial, []
        for where, piece in _pieces(u, step, into, out_of, kept):
            boundaries.append(state)
            decay, inputs = piece.expanded(rates)
            states = _scan(decay, inputs, state)
            torch.sum(states * piece.out_of, dim=2, out=y[:, where])
            state = states[:, -1].clone()
        ctx.save_for_backward(u, step, rates, into, out_of, kept, *boundaries)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, carry: Tensor) -> tuple[Tensor | None, ...]:
        u, step, rates, into, out_of, kept, *boundaries = ctx.saved_tensors
        du, dstep, dinto, dout_of = (torch.empty_like(each) for each in (u, step, into, out_of))
        drates = torch.zeros_like(rates)
        pieces = list(_pieces(u, step, into, out_of, kept))
        for (where, piece), state in zip(reversed(pieces), reversed(boundaries), strict=True):
            gradient = dy[:, where].unsqueeze(2)
            decay, inputs = piece.expanded(rates)
            states, ddecay, delta, carry = _adjoint(decay, inputs, state, piece.out_of * gradient, carry)
            slope = ddecay.mul_(decay)
            w = (delta * piece.into).sum(2)
            du[:, where] = piece.step.squeeze(2) * w
            dstep[:, where] = (slope * rates).sum(2) + piece.u.squeeze(2) * w
            dinto[:, where] = delta.mul_(piece.step * piece.u).sum(3)
            dout_of[:, where] = states.mul_(gradient).sum(3)
            drates += slope.mul_(piece.step).sum((0, 1))
        return du, dstep, drates, dinto, dout_of, carry, None


def _pieces(
    u: Tensor, step: Tensor, into: Tensor, out_of: Tensor, kept: Tensor | None
) -> Iterator[tuple[slice, _Piece]]:
    batch, length, width = u.shape
    span = max(1, PIECE // max(1, batch * width * into.shape[2]))
    for first in range(0, length, span):
        where = slice(first, first + span)
        yield (
            where,
            _Piece(
                u[:, where, None],
                step[:, where, None],
                into[:, where, :, None],
                out_of[:, where, :, None],
                None if kept is None else kept[:, where, None, None],
            ),
        )


def _scan(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    return linear_scan(decay.flatten(2), inputs.flatten(2), state.flatten(1)).view_as(inputs)


def _adjoint(
    decay: Tensor, inputs: Tensor, state: Tensor, gradient: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The states again, and the gradients of decay, inputs and the state before, given those of states and the last."""
    leaves = [each.detach().requires_grad_() for each in (decay, inputs, state)]
    with torch.enable_grad():
        states = _scan(*leaves)
    gradient[:, -1] += carry
    ddecay, dinputs, before = torch.autograd.grad(states, leaves, gradient)
    return states.detach(), ddecay, dinputs, before
