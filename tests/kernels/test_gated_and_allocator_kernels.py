"""The gated activation, and the allocator's settings."""

import sys

import pytest
import torch
from torch.nn import functional as F

from windtunnel.kernels import gated, gated_reference, tune_allocator


def test_gated_equals_torch() -> None:
    gate, up = torch.randn(2, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(gated(gate, up), gate * torch.sigmoid(gate) * up)
    torch.testing.assert_close(gated(gate, up, "gelu_tanh"), F.gelu(gate, approximate="tanh") * up)
    with pytest.raises(ValueError, match="gelu_tanh"):
        gated(gate, up, "relu")  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("shape", [(1, 3), (5, 7, 33), (1000, 3)])
def test_gated_gradients(activation: str, shape: tuple[int, ...]) -> None:
    gate, up = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weights = torch.randn(shape, dtype=torch.float64)
    ours, reference = gated(gate, up, activation), gated_reference(gate, up, activation)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (gate, up), weights), torch.autograd.grad(reference, (gate, up), weights)
    )


def test_allocator_can_be_tuned_twice() -> None:
    assert tune_allocator() == tune_allocator()
    if sys.platform != "linux":
        assert not tune_allocator()
