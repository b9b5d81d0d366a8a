"""Attention with linear biases (Press et al. 2022, arXiv 2108.12409)."""

import torch
from torch import Tensor

from windtunnel.layer import Context
from windtunnel.spec import Spec


class Alibi(Spec):
    """logit_ij = scale q_i·k_j - slope_h (i - j): nearer keys score higher; no other signal of position is needed.

    For H heads, H a power of two, slope_h = 2^(-steepness h / H), h = 1 .. H. For any other H: the slopes of the
    largest power of two below it, then every second one of the next power of two, from its first on (the authors'
    code). Their order is not sorted; checkpoints depend on it. The scale does not touch the bias.
    """

    steepness: float = 8.0

    def validate(self) -> None:
        self.require(self.steepness > 0, f"steepness must be positive, got {self.steepness}")

    def slopes(self, heads: int) -> Tensor:
        """[h], in float64."""
        whole = 1 << (heads.bit_length() - 1)
        return torch.cat([self._geometric(whole), self._geometric(2 * whole)[::2][: heads - whole]])

    def _geometric(self, heads: int) -> Tensor:
        return 2.0 ** (-self.steepness / heads * torch.arange(1, heads + 1, dtype=torch.float64))

    def of(self, context: Context, heads: int) -> Tensor:
        """The slopes where this call computes; made once a forward pass."""
        name = (self, heads)
        if name not in context.tables:
            context.tables[name] = self.slopes(heads).to(context.positions.device)
        slopes: Tensor = context.tables[name]
        return slopes
