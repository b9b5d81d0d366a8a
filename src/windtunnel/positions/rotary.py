"""Rotary positions (Su et al. 2021, RoFormer)."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.kernels.rotary import rotate, turn, widened
from windtunnel.kernels.routing import by_hand, working_dtype
from windtunnel.layer import Context
from windtunnel.positions.scaling import Scaling
from windtunnel.spec import Spec, fields

AnySpec = TypeVar("AnySpec", bound=Spec)


class Rope(Spec):
    """Rotate pair i of a query or key at position m by the angle m * theta^(-2i/r), i = 0 .. r/2-1.

    layout: "half" pairs (i, i + r/2), "interleaved" pairs (2i, 2i + 1); the same function up to a permutation of
    the rows of the query and key matrices. width: the first r numbers of each head are rotated; None is all of them.
    scaling: how the frequencies are stretched over more than the trained context.
    """

    theta: float = 10_000.0
    layout: Literal["half", "interleaved"] = "half"
    width: int | None = None
    scaling: Scaling | None = None

    def validate(self) -> None:
        self.require(self.theta > 0, f"theta must be positive, got {self.theta}")
        self.require(
            self.width is None or (self.width > 0 and self.width % 2 == 0), f"width must be even: {self.width}"
        )

    def check(self, head_width: int) -> None:
        """Refuse a head that cannot be rotated."""
        rotated = self.width or head_width
        self.require(rotated % 2 == 0, f"a head width of {head_width} cannot be rotated in pairs; make it even")
        self.require(rotated <= head_width, f"width {rotated} is more than the head width {head_width}")

    def frequencies(self, head_width: int) -> Tensor:
        """[r/2] angles per position, in float64."""
        rotated = self.width or head_width
        base = self.theta ** (-torch.arange(0, rotated, 2, dtype=torch.float64) / rotated)
        return base if self.scaling is None else self.scaling.frequencies(base, self.theta)

    def apply(self, context: Context, *heads: Tensor) -> tuple[Tensor, ...]:
        """Rotate tensors [b h t k] by the positions of this call; tables are made once a forward pass."""
        dtype = working_dtype(heads[0])
        name = (self, heads[0].shape[-1], dtype)
        if name not in context.tables:
            context.tables[name] = self._tables(context.positions, heads[0].shape[-1], dtype)
        cosine, sine = context.tables[name]
        if torch.is_grad_enabled() or heads[0].dtype != dtype or not by_hand(heads[0]):
            return tuple(rotate(x, cosine, sine, layout=self.layout) for x in heads)
        wide = ("widened", *name)
        if wide not in context.tables:
            context.tables[wide] = widened(cosine, sine, self.layout)
        return tuple(turn(x, context.tables[wide]) for x in heads)

    def _tables(self, positions: Tensor, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        found = self.frequencies(head_width) if torch.compiler.is_compiling() else _frequencies(self, head_width)
        frequencies = found.to(positions.device)
        angles = positions.to(torch.float64)[..., None] * frequencies  # t r/2, or b t r/2
        if positions.dim() == 2:
            angles = angles[:, None]  # one table for all heads of a row
        magnitude = self.scaling.magnitude if self.scaling is not None else 1.0
        return (magnitude * angles.cos()).to(dtype), (magnitude * angles.sin()).to(dtype)


@lru_cache(maxsize=64)
def _frequencies(rope: Rope, head_width: int) -> Tensor:
    with torch.inference_mode(False), torch.device("cpu"):  # later calls may want gradients, or another device
        return rope.frequencies(head_width)


def scaled(spec: AnySpec, scaling: Scaling | None) -> AnySpec:
    """The same spec with this scaling in every `Rope` that it holds; None takes any scaling away.

    Parameters are the same before and after. Raises `InputError` where there is no `Rope`.
    """
    if not has_rope(spec):
        raise InputError(f"{spec.kind}: has no rotary positions to scale; its recipe uses others, or none")
    return _scaled(spec, scaling)  # type: ignore[no-any-return]


def _scaled(value: Any, scaling: Scaling | None) -> Any:
    if isinstance(value, Rope):
        return value.replace(scaling=scaling)
    if isinstance(value, tuple):
        return tuple(_scaled(item, scaling) for item in value)
    if isinstance(value, Spec):
        return value.replace(**{name: _scaled(item, scaling) for name, item in fields(value)})
    return value


def ropes(value: Any) -> Iterator[Rope]:
    """The rotary positions that a spec, or any that it holds, has."""
    if isinstance(value, Rope):
        yield value
    inner = (
        value if isinstance(value, tuple) else [item for _, item in fields(value)] if isinstance(value, Spec) else ()
    )
    for item in inner:
        yield from ropes(item)


def has_rope(value: Any) -> bool:
    """Whether a spec, or any that it holds, has rotary positions."""
    return next(ropes(value), None) is not None
