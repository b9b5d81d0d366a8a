"""The contract of MLPs: `output = layer(x)`, with losses and metrics beside the hidden values."""

from windtunnel.layer import MLPLayer
from windtunnel.spec import Spec


class MLP(Spec):
    """A function of each position alone."""

    @property
    def active(self) -> int:
        """How many MLPs of its hidden width a token goes through: experts have more than one."""
        return 1

    def build(self, width: int) -> "MLPLayer":
        """The module for a residual stream of `width` numbers."""
        raise NotImplementedError
