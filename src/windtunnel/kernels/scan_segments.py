"""The linear recurrence in plain torch: segments of the sequence side by side, one fused multiply-add for each step.

A step over [batch, channels] numbers costs more in calls than in arithmetic. So the sequence is cut into blocks of
segments, and within a block step l of all segments is one call:

    1. from zero, how each segment but the last ends, and the product of its decays (two numbers a channel);
    2. one segment after another, what each starts from: start_{c+1} = end_c + product_c ⊙ start_c;
    3. the recurrence itself from those starts, states stored.

Decays and inputs are read twice, the second time from the cache. No logarithm and no division: a decay of zero is
exact.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

_Item = TypeVar("_Item")
_NUMBERS = 1 << 17  # in a call: two cores' carries fit their second-level caches, a block of segments the third
_STEPS = 17  # of a segment; odd, or segments would lie powers of two apart and share few cache lines
_SEGMENTS = 64  # at most: step 2 goes one by one


def scan_segments(
    decay: Tensor,
    inputs: Tensor,
    initial: Tensor | None,
    states: Tensor,
    reverse: bool = False,
    finished: Callable[[slice], None] = lambda span: None,
) -> None:
    """Fill states [b t d] of h_t = decay_t ⊙ h_{t-1} + inputs_t, or with `reverse` h_t = decay_t ⊙ h_{t+1} + inputs_t.

    initial: [b d], what comes before the first step of that order; None is zero. finished: called with each stretch of
    time whose states are there, while they are in the cache.
    """
    length, done = inputs.shape[1], 0
    carry = torch.zeros_like(inputs[:, 0]) if initial is None else initial
    while done < length:
        segments = _segments(inputs.shape[0] * inputs.shape[2], length - done)
        count = segments * _STEPS if segments > 1 else min(_STEPS, length - done)
        span = slice(length - done - count, length - done) if reverse else slice(done, done + count)
        parts = [tensor[:, span] for tensor in (decay, inputs, states)]
        if segments > 1:
            _side_by_side([_folded(part, segments) for part in parts], carry, reverse)
        else:
            a, x, state = (_ordered(part.unbind(1), reverse) for part in parts)
            _steps(a, x, state, carry)
        carry = states[:, span.start if reverse else span.stop - 1]
        finished(span)
        done += count


def _segments(numbers: int, length: int) -> int:
    """Segments of the next block, for so many numbers a step and steps to go."""
    return min(_NUMBERS // max(numbers, 1), _SEGMENTS, length // _STEPS)


def _folded(x: Tensor, segments: int) -> Tensor:
    """[b (segments steps) d] as [b segments steps d], a view whatever the strides."""
    batch, length, width = x.shape
    row, step, channel = x.stride()
    steps = length // segments
    return x.as_strided((batch, segments, steps, width), (row, steps * step, step, channel))


def _side_by_side(parts: list[Tensor], carry: Tensor, reverse: bool) -> None:
    """decay, inputs and states as [b segments steps d], with what comes before the first of them, [b d]."""
    others = slice(1, None) if reverse else slice(None, -1)
    decay, inputs = (_ordered(part[:, others].unbind(2), reverse) for part in parts[:2])
    end, product = torch.addcmul(inputs[1], decay[1], inputs[0]), decay[0] * decay[1]
    for a, x in zip(decay[2:], inputs[2:], strict=True):
        torch.addcmul(x, a, end, out=end)
        product.mul_(a)
    starts = parts[1].new_empty(parts[1][:, :, 0].shape)
    start, *later = _ordered(starts.unbind(1), reverse)
    start.copy_(carry)
    each = zip(*(_ordered(tensor.unbind(1), reverse) for tensor in (end, product)), later, strict=True)
    for x, a, following in each:
        start = torch.addcmul(x, a, start, out=following)
    decay, inputs, states = (_ordered(part.unbind(2), reverse) for part in parts)
    _steps(decay, inputs, states, starts)


def _steps(decay: Sequence[Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], carry: Tensor) -> None:
    for a, x, state in zip(decay, inputs, states, strict=True):
        carry = torch.addcmul(x, a, carry, out=state)


def _ordered(items: Sequence[_Item], reverse: bool) -> Sequence[_Item]:
    return items[::-1] if reverse else items
