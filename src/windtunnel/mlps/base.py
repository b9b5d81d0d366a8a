"""The contract of MLPs: `output = layer(x)`, with losses and metrics beside the hidden values."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from windtunnel.layer import EMPTY, Layer
from windtunnel.spec import Spec


class MLPOutput(NamedTuple):
    """hidden [b t d]; losses (weighted) and metrics by name, empty for dense MLPs."""

    hidden: Tensor
    losses: Mapping[str, Tensor] = EMPTY
    metrics: Mapping[str, Tensor] = EMPTY


class MLP(Spec):
    """A function of each position alone."""

    def build(self, width: int) -> "MLPLayer":
        """The module for a residual stream of `width` numbers."""
        raise NotImplementedError


class MLPLayer(Layer):
    """Base of MLP modules: `forward(x [b t d]) -> MLPOutput`."""

    mechanism = "MLP"
