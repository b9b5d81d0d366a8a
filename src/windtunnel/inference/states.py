"""Decoding states of many requests in one: rows taken out, put back, moved and rolled back."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from windtunnel.mixers.base import Buffers
from windtunnel.root import ModelState


def rows(state: ModelState, chosen: slice) -> tuple[Any, ...]:
    """The blocks' states of some rows, as views: what a call writes in place there is written in `state`."""
    return tuple(_map(block, lambda tensor: tensor[chosen]) for block in state.blocks)


def put(state: ModelState, chosen: slice, blocks: Sequence[Any]) -> None:
    """Store what a call on these rows returned; buffers are there already."""
    for held, new in zip(state.blocks, blocks, strict=True):
        if held is new:
            continue
        for target, source in zip(tensors(held), tensors(new), strict=True):
            part = target[chosen]
            if part.data_ptr() != source.data_ptr():
                part.copy_(source)


def move(state: ModelState, source: int, target: int, written: int) -> None:
    """Copy one row onto another; at most `written` tokens were ever written in either since it was cleared."""
    for block in state.blocks:
        for to, part in zip(_row(block, target, written), _row(block, source, written), strict=True):
            to.copy_(part)


def clear(state: ModelState, row: int, empty: ModelState, written: int) -> None:
    """Make one row, in which `written` tokens were written, as at the beginning; `empty` is a fresh state of one."""
    for block, fresh in zip(state.blocks, empty.blocks, strict=True):
        for to, part in zip(_row(block, row, written), _row(fresh, 0, written), strict=True):
            to.copy_(part)


def snapshot(blocks: Sequence[Any]) -> tuple[Any, ...]:
    """A copy of what a call would change for good; buffers are left out, they can be rolled back."""
    return tuple(block if isinstance(block, Buffers) else _map(block, Tensor.clone) for block in blocks)


def roll_back(blocks: Sequence[Any], length: int) -> None:
    """Forget in all buffers what stands at positions of `length` and more."""
    for block in blocks:
        for part in _buffers(block):
            part.positions.masked_fill_(part.positions >= length, -1)


def only_buffers(blocks: Sequence[Any]) -> bool:
    """Whether rolling back needs no snapshot."""
    return all(isinstance(block, Buffers) for block in blocks)


def tensors(block: Any) -> list[Tensor]:
    """Every tensor of a mixer's state, in a fixed order."""
    if isinstance(block, Tensor):
        return [block]
    if isinstance(block, tuple):
        return [tensor for part in block for tensor in tensors(part)]
    return []


def flat(blocks: Sequence[Any]) -> list[Tensor]:
    """Every tensor of the blocks' states, in a fixed order."""
    return [tensor for block in blocks for tensor in tensors(block)]


def filled(blocks: Sequence[Any], given: Sequence[Tensor]) -> tuple[Any, ...]:
    """States of the form of `blocks` that hold these tensors, in the order of `flat`."""
    rest = iter(given)
    return tuple(_map(block, lambda tensor: next(rest)) for block in blocks)


def buffers(blocks: Sequence[Any]) -> list[Buffers]:
    """Every buffer among the blocks' states."""
    return [found for block in blocks for found in _buffers(block)]


def state_bytes(state: ModelState) -> int:
    """Bytes that a state holds."""
    return sum(tensor.numel() * tensor.element_size() for block in state.blocks for tensor in tensors(block))


def _row(block: Any, row: int, written: int) -> list[Tensor]:
    """The tensors of one row; of buffers the slots that so many tokens can have touched: the others are as new."""
    if isinstance(block, Buffers):
        return [block.keys[row, :, :written], block.values[row, :, :written], block.positions[row, :written]]
    return [tensor[row] for tensor in tensors(block)]


def _buffers(block: Any) -> list[Buffers]:
    if isinstance(block, Buffers):
        return [block]
    return [found for part in block for found in _buffers(part)] if isinstance(block, tuple) else []


def _map(block: Any, function: Any) -> Any:
    if isinstance(block, Tensor):
        return function(block)
    if isinstance(block, tuple):
        parts = [_map(part, function) for part in block]
        return type(block)(*parts) if hasattr(block, "_fields") else tuple(parts)
    return block
