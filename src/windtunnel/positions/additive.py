"""Positions that are added to the token embedding."""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.layer import Context, Layer, Role
from windtunnel.spec import Spec


class Positions(Spec):
    """A vector for each absolute position, added to the token's."""

    def check(self, width: int) -> None:
        """Refuse a width that these positions cannot have."""

    def build(self, width: int) -> "PositionsLayer":
        """The module for a residual stream of `width` numbers."""
        raise NotImplementedError


class PositionsLayer(Layer):
    """Base of position modules: `forward(context, like [b t d])` gives the vectors of this call, [t d] or [b t d].

    They have the dtype and the device of `like`. length: positions that there are, None where all are.
    """

    mechanism = "positions"
    length: int | None = None

    def bounded(self, context: Context) -> Tensor:
        """The positions of this call; an `InputError` if the table does not reach so far.

        A compiled program checks its indices itself.
        """
        if self.length is not None and not torch.compiler.is_compiling() and context.reach > self.length:
            raise InputError(f"{context.reach} positions asked of a table of {self.length}; use a longer `context`")
        return context.positions


class Learned(Positions):
    """A learned vector for each of `length` absolute positions (GPT, GPT-2, GPT-3)."""

    length: int
    deviation: float = 0.02

    def validate(self) -> None:
        self.require(self.length > 0, f"length must be positive, got {self.length}")

    def build(self, width: int) -> "LearnedLayer":
        return LearnedLayer(self, width)


def stretched(table: Tensor, trained: int, length: int) -> Tensor:
    """A learned table [n d] for `length` positions, of which position m has the vector at m trained / length.

    Between two rows that is their weighted mean, and beyond the last trained row that row: position interpolation (Chen
    et al. 2023, arXiv 2306.15595) for a table.
    """
    places = (torch.arange(length, dtype=torch.float64) * trained / length).clamp(max=trained - 1)
    below = places.long()
    share = (places - below).to(table.dtype)[:, None]
    return torch.lerp(table[below], table[(below + 1).clamp(max=trained - 1)], share)


class LearnedLayer(PositionsLayer):
    def __init__(self, spec: Learned, width: int) -> None:
        super().__init__()
        self.length = spec.length
        self.weight = self.declare("weight", (spec.length, width), Role("embedding", deviation=spec.deviation))

    def forward(self, context: Context, like: Tensor) -> Tensor:
        return self.weight[self.bounded(context)]


class Sinusoidal(Positions):
    """e[m, 2i] = sin(m theta^(-2i/d)), e[m, 2i + 1] = cos(m theta^(-2i/d)) (Vaswani et al. 2017, section 3.5).

    layout: "interleaved" is the paper's formula. "concatenated" is that of the authors' library (tensor2tensor): all
    sines, then all cosines, and i / (d/2 - 1) in the exponent, so that the slowest wave has theta itself.
    """

    theta: float = 10_000.0
    layout: Literal["interleaved", "concatenated"] = "interleaved"

    def validate(self) -> None:
        self.require(self.theta > 0, f"theta must be positive, got {self.theta}")

    def check(self, width: int) -> None:
        self.require(width % 2 == 0, f"sines come with cosines, so the width must be even, got width {width}")

    def build(self, width: int) -> "SinusoidalLayer":
        self.check(width)
        return SinusoidalLayer(self)

    def table(self, positions: Tensor, width: int) -> Tensor:
        """[.. t d] for positions [.. t], in float64."""
        half = torch.arange(width // 2, dtype=torch.float64, device=positions.device)
        exponents = 2 * half / width if self.layout == "interleaved" else half / max(width // 2 - 1, 1)
        angles = positions.to(torch.float64)[..., None] * self.theta**-exponents
        waves = [angles.sin(), angles.cos()]
        return torch.stack(waves, -1).flatten(-2) if self.layout == "interleaved" else torch.cat(waves, -1)


class SinusoidalLayer(PositionsLayer):
    def __init__(self, spec: Sinusoidal) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, context: Context, like: Tensor) -> Tensor:
        return self.spec.table(context.positions, like.shape[-1]).to(like.dtype)


Combination = Literal["concatenate", "sum", "average"]
_DEVIATIONS: dict[str, float] = {"concatenate": 1.0, "sum": 1.0, "average": 0.01}


class Axial(Positions):
    """Position p is a point of a grid, p = (r_1 n_2 + r_2) n_3 + ..; each axis has a table of its own.

    shape: the grid (n_1, n_2, ..), whose product is `length`; the first axis is the slow one. combine: how the rows
    E_a[r_a] become one vector. "concatenate": one beside the other (Reformer, Kitaev et al. 2020, section 2.4; widths
    gives the width of each, None splits evenly). "sum": added, each as wide as the model. "average": their mean (the
    first GPT-Neo code base). deviation: of the initial values; None is the published one, 1, 1 and 0.01.
    """

    length: int
    shape: tuple[int, ...]
    combine: Combination = "concatenate"
    widths: tuple[int, ...] | None = None
    deviation: float | None = None

    def validate(self) -> None:
        self.require(len(self.shape) > 0 and min(self.shape) > 0, f"shape must hold positive factors, got {self.shape}")
        grid = " x ".join(str(side) for side in self.shape)
        product = math.prod(self.shape)
        self.require(product == self.length, f"shape {grid} has {product} points, not the length {self.length}")
        if self.widths is not None:
            self.require(self.combine == "concatenate", f"widths are for combine 'concatenate', not {self.combine!r}")
            self.require(
                len(self.widths) == len(self.shape) and min(self.widths) > 0,
                f"widths must give each of the {len(self.shape)} axes a positive width, got {self.widths}",
            )

    def check(self, width: int) -> None:
        widths = self.axis_widths(width)
        if self.combine == "concatenate":
            self.require(min(widths) > 0, f"width {width} cannot be split among {len(self.shape)} axes")
            self.require(sum(widths) == width, f"widths {widths} sum to {sum(widths)}, not to the width {width}")

    def axis_widths(self, width: int) -> tuple[int, ...]:
        """How wide each axis's table is in a model of this width."""
        if self.combine != "concatenate":
            return (width,) * len(self.shape)
        axes = len(self.shape)
        ends = [width * axis // axes for axis in range(axes + 1)]
        return self.widths or tuple(end - start for start, end in pairwise(ends))

    def build(self, width: int) -> "AxialLayer":
        self.check(width)
        return AxialLayer(self, width)


class AxialLayer(PositionsLayer):
    def __init__(self, spec: Axial, width: int) -> None:
        super().__init__()
        self.spec, self.length = spec, spec.length
        deviation = spec.deviation if spec.deviation is not None else _DEVIATIONS[spec.combine]
        for axis, shape in enumerate(zip(spec.shape, spec.axis_widths(width), strict=True)):
            setattr(self, f"axis{axis}", self.declare(f"axis{axis}", shape, Role("embedding", deviation=deviation)))

    def forward(self, context: Context, like: Tensor) -> Tensor:
        points = self.bounded(context)
        found: list[Tensor] = []
        for axis in reversed(range(len(self.spec.shape))):
            found.insert(0, getattr(self, f"axis{axis}")[points % self.spec.shape[axis]])
            points = points // self.spec.shape[axis]
        if self.spec.combine == "concatenate":
            return torch.cat(found, -1)
        total = torch.stack(found).sum(0)
        return total / len(found) if self.spec.combine == "average" else total
