"""The linear recurrence in Triton, for CUDA: tiles of time are scanned on chip, their last row is carried on.

One program for each sequence and block of channels walks along time, forwards for the states and backwards for the
adjoint; each number is read once and written once. Needs `triton`, which comes with torch's CUDA wheels; imported only
where it is used.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl
from torch import Tensor

_TIME, _CHANNELS = 32, 32


@triton.jit
def _combine(a_first, x_first, a_second, x_second):
    """Two steps in one: h -> a2 (a1 h + x1) + x2."""
    return a_first * a_second, x_first * a_second + x_second


@triton.jit
def _forward(
    decay, inputs, initial, states, time, width, STARTED: tl.constexpr, TIME: tl.constexpr, CHANNELS: tl.constexpr
):
    row, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < width
    carry = tl.zeros([CHANNELS], dtype=states.dtype.element_ty)
    if STARTED:
        carry = tl.load(initial + row * width + channel, mask=inside, other=0.0)
    step = tl.arange(0, TIME)
    for start in range(0, time, TIME):
        t = start + step
        at = (row * time + t)[:, None] * width + channel[None, :]
        mask = (t < time)[:, None] & inside[None, :]
        # Beyond the end a = 1 and x = 0, which carries the last state to the tile's last row.
        a = tl.load(decay + at, mask=mask, other=1.0)
        x = tl.load(inputs + at, mask=mask, other=0.0)
        product, state = tl.associative_scan((a, x), 0, _combine)
        state += product * carry[None, :]
        tl.store(states + at, state, mask=mask)
        carry = tl.sum(tl.where((step == TIME - 1)[:, None], state, 0.0), 0)


@triton.jit
def _adjoint(
    decay, states, initial, gradient, d_decay, d_inputs, time, width,
    STARTED: tl.constexpr, TIME: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < width
    carry = tl.zeros([CHANNELS], dtype=states.dtype.element_ty)
    first = tl.zeros([CHANNELS], dtype=states.dtype.element_ty)
    if STARTED:
        first = tl.load(initial + row * width + channel, mask=inside, other=0.0)
    step = tl.arange(0, TIME)
    tiles = (time + TIME - 1) // TIME
    for tile in range(tiles):
        t = (tiles - 1 - tile) * TIME + step
        at = (row * time + t)[:, None] * width + channel[None, :]
        mask = (t < time)[:, None] & inside[None, :]
        following = tl.load(decay + at + width, mask=mask & (t < time - 1)[:, None], other=0.0)
        g = tl.load(gradient + at, mask=mask, other=0.0)
        product, delta = tl.associative_scan((following, g), 0, _combine, reverse=True)
        delta += product * carry[None, :]
        before = tl.load(states + at - width, mask=mask & (t > 0)[:, None], other=0.0)
        before = tl.where((t == 0)[:, None], first[None, :], before)
        tl.store(d_inputs + at, delta, mask=mask)
        tl.store(d_decay + at, delta * before, mask=mask)
        carry = tl.sum(tl.where((step == 0)[:, None], delta, 0.0), 0)


def forward(decay: Tensor, inputs: Tensor, initial: Tensor | None, states: Tensor) -> None:
    """Fill states [b t d], contiguous."""
    start = states if initial is None else initial.contiguous()
    _forward[_grid(states)](
        decay.contiguous(), inputs.contiguous(), start, states, states.shape[1], states.shape[2],
        STARTED=initial is not None, TIME=_TIME, CHANNELS=_CHANNELS,
    )  # fmt: skip


def adjoint(
    decay: Tensor, states: Tensor, initial: Tensor | None, gradient: Tensor, d_decay: Tensor, d_inputs: Tensor
) -> None:
    """Fill d_decay and d_inputs [b t d], contiguous."""
    start = states if initial is None else initial.contiguous()
    _adjoint[_grid(states)](
        decay.contiguous(), states, start, gradient.contiguous(), d_decay, d_inputs, states.shape[1], states.shape[2],
        STARTED=initial is not None, TIME=_TIME, CHANNELS=_CHANNELS,
    )  # fmt: skip


def _grid(states: Tensor) -> tuple[int, int]:
    return states.shape[0], triton.cdiv(states.shape[2], _CHANNELS)
