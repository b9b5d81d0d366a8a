"""Positions that are added to the token embedding."""

from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.layer import Layer, Role
from windtunnel.spec import Spec


class Learned(Spec):
    """A learned vector for each of `length` absolute positions (GPT, GPT-2, GPT-3)."""

    length: int
    deviation: float = 0.02

    def validate(self) -> None:
        self.require(self.length > 0, f"length must be positive, got {self.length}")

    def build(self, width: int) -> "LearnedLayer":
        return LearnedLayer(self, width)


class LearnedLayer(Layer):
    mechanism = "positions"

    def __init__(self, spec: Learned, width: int) -> None:
        super().__init__()
        self.length = spec.length
        self.weight = self.declare("weight", (spec.length, width), Role("embedding", deviation=spec.deviation))

    def forward(self, first: int, count: int) -> Tensor:
        """The vectors of positions first .. first + count - 1, [t d]."""
        if first + count > self.length:
            raise InputError(f"{first + count} positions asked of a table of {self.length}; use a longer `context`")
        return self.weight[first : first + count]
