"""Rotary positions (Su et al. 2021, RoFormer)."""

from typing import Literal

import torch
from torch import Tensor

from windtunnel.kernels.rotary import rotate
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context
from windtunnel.spec import Spec


class Rope(Spec):
    """Rotate pair i of a query or key at position m by the angle m * theta^(-2i/r), i = 0 .. r/2-1.

    layout: "half" pairs (i, i + r/2), "interleaved" pairs (2i, 2i + 1); the same function up to a permutation of
    the rows of the query and key matrices. width: the first r numbers of each head are rotated; None is all of them.
    """

    theta: float = 10_000.0
    layout: Literal["half", "interleaved"] = "half"
    width: int | None = None

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
        return self.theta ** (-torch.arange(0, rotated, 2, dtype=torch.float64) / rotated)

    def apply(self, context: Context, *heads: Tensor) -> tuple[Tensor, ...]:
        """Rotate tensors [b h t k] by the positions of this call; tables are made once a forward pass."""
        dtype = working_dtype(heads[0])
        name = (self, heads[0].shape[-1], dtype)
        if name not in context.tables:
            context.tables[name] = self._tables(context.positions, heads[0].shape[-1], dtype)
        cosine, sine = context.tables[name]
        return tuple(rotate(x, cosine, sine, layout=self.layout) for x in heads)

    def _tables(self, positions: Tensor, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        frequencies = self.frequencies(head_width).to(positions.device)
        angles = positions.to(torch.float64)[:, None] * frequencies  # t r/2
        return angles.cos().to(dtype), angles.sin().to(dtype)
