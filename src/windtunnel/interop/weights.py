"""Tensors under two sets of names: steps written once for the way in, and read backwards on the way out.

A family lists `Weight`s. Each takes a few of their tensors through operations to a few of ours; its inverse is the
chain of the operations' inverses. On the meta device the inverse tells which tensors a checkpoint must hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Operation:
    """A map of a list of tensors that can be undone: `backward(forward(parts))` gives the same bits back."""

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        """From theirs to ours."""
        raise NotImplementedError

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        """From ours to theirs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Transpose(Operation):
    """Matrices stored [in, out]; vectors stay."""

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.mT if part.dim() > 1 else part for part in parts]

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        return self.forward(parts)


@dataclass(frozen=True)
class Split(Operation):
    """One tensor whose rows belong to several of ours, so many to each."""

    rows: tuple[int, ...]

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        (whole,) = parts
        return list(torch.split(whole, list(self.rows)))

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        return [torch.cat(parts)]


@dataclass(frozen=True)
class Stack(Operation):
    """Several tensors of one shape that are one of ours, along a new first axis."""

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [torch.stack(parts)]

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        (whole,) = parts
        return list(whole.unbind())


@dataclass(frozen=True)
class Halves(Operation):
    """One tensor [e 2f d] that holds two of ours, [e f d] each."""

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        (whole,) = parts
        return list(whole.chunk(2, dim=1))

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        return [torch.cat(parts, dim=1)]


@dataclass(frozen=True)
class Rows(Operation):
    """Rows in another order: row i of ours is row order[i] of theirs."""

    order: tuple[int, ...]

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.index_select(0, torch.tensor(self.order, device=part.device)) for part in parts]

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.index_select(0, torch.tensor(self.order, device=part.device).argsort()) for part in parts]


@dataclass(frozen=True)
class Squeeze(Operation):
    """An axis of length 1 that ours do not have."""

    axis: int

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.squeeze(self.axis) for part in parts]

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.unsqueeze(self.axis) for part in parts]


@dataclass(frozen=True)
class Flatten(Operation):
    """The first two axes, of `blocks` and any length, as one."""

    blocks: int

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.flatten(0, 1) for part in parts]

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.view(self.blocks, -1, *part.shape[1:]) for part in parts]


@dataclass(frozen=True)
class AddOne(Operation):
    """Gains stored less one. In float32 or wider: near one, narrower numbers would lose most of a small gain.

    Ours come back from theirs with the same bits, since the difference of two neighbours of one is exact.
    """

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part.to(torch.promote_types(part.dtype, torch.float32)) + 1 for part in parts]

    def backward(self, parts: list[Tensor]) -> list[Tensor]:
        return [part - 1 for part in parts]


@dataclass(frozen=True)
class Weight:
    """Some of their tensors that are some of ours."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    operations: tuple[Operation, ...] = ()

    def to_ours(self, parts: list[Tensor]) -> dict[str, Tensor]:
        """Ours by name, from theirs in the order of `theirs`."""
        for operation in self.operations:
            parts = operation.forward(parts)
        return dict(zip(self.ours, parts, strict=True))

    def to_theirs(self, parts: list[Tensor]) -> dict[str, Tensor]:
        """Theirs by name, from ours in the order of `ours`."""
        for operation in reversed(self.operations):
            parts = operation.backward(parts)
        return dict(zip(self.theirs, parts, strict=True))

    @property
    def wide(self) -> bool:
        """Whether it needs numbers of at least 32 bits."""
        return any(isinstance(operation, AddOne) for operation in self.operations)


def weight(theirs: str | Sequence[str], ours: str | Sequence[str], *operations: Operation) -> Weight:
    """A step between names; one name may stand for a tuple of one."""
    return Weight(_tuple(theirs), _tuple(ours), operations)


def linear(theirs: str, ours: str | Sequence[str], *operations: Operation, bias: bool = False) -> list[Weight]:
    """The steps of a matrix, and of its bias if it has one: the same operations on `NAME.weight` and `NAME.bias`."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [weight(f"{theirs}.{kind}", [f"{each}.{kind}" for each in _tuple(ours)], *operations) for kind in kinds]


def norm(theirs: str, ours: str, *operations: Operation, bias: bool = False) -> list[Weight]:
    """The steps of a norm's gain and bias."""
    return linear(theirs, ours, *operations, bias=bias)


def expected(steps: Iterable[Weight], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors that hold ours, which may lie on the meta device. Every one of ours must be in one step."""
    steps = list(steps)
    named = [name for step in steps for name in step.ours]
    assert sorted(named) == sorted(ours), sorted(set(named) ^ set(ours))
    found: dict[str, Tensor] = {}
    for step in steps:
        found.update(step.to_theirs([ours[name] for name in step.ours]))
    return found


def heads_apart(heads: int, head_width: int, parts: int = 3) -> Rows:
    """Rows that lie head after head, each with its q, k and v, as all of q, then k, then v."""
    order = torch.arange(heads * parts * head_width).view(heads, parts, head_width)
    return Rows(tuple(order.transpose(0, 1).flatten().tolist()))


def _tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
