"""The elementwise heart of a gated MLP (Shazeer 2020, arXiv 2002.05202): SwiGLU and GEGLU."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Activation = Literal["silu", "gelu_tanh"]


def gated_reference(gate: Tensor, up: Tensor, activation: Activation = "silu") -> Tensor:
    """activation(gate) * up."""
    if activation == "silu":
        return F.silu(gate) * up
    if activation == "gelu_tanh":
        return F.gelu(gate, approximate="tanh") * up
    raise ValueError(f"activation is {activation!r}; allowed: 'silu', 'gelu_tanh'")


def gated(gate: Tensor, up: Tensor, activation: Activation = "silu") -> Tensor:
    """activation(gate) * up, elementwise."""
    return gated_reference(gate, up, activation)
