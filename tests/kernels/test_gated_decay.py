"""Decay and scaled input of an RG-LRU: the hand-written derivative, numpy's equations, and where 1 - a² is nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.proof import Proof
from windtunnel.kernels.gated_decay import STEEPEST, bounded_root, gated_decay, gated_decay_reference

EXACT = 1e-12
POWER = 8.0


def case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both gates and the input [2 7 5], and Λ [5]."""
    draw = torch.Generator().manual_seed(seed)
    wide = [torch.randn(2, 7, 5, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(3)]
    return wide[0], wide[1], wide[2], (torch.randn(5, generator=draw, dtype=torch.float64) - 4).requires_grad_()


RESETS = (torch.arange(7) % 3 == 0)[None, :, None]
NOWHERE = torch.zeros(1, 7, 1, dtype=torch.bool)


@pytest.mark.parametrize("resets", [RESETS, NOWHERE], ids=["documents", "one document"])
def test_values_and_gradients(resets: Tensor, proof: Proof) -> None:
    tensors = case()
    ours, reference = gated_decay(*tensors, POWER, resets), gated_decay_reference(*tensors, POWER, resets)
    torch.testing.assert_close(ours, reference, rtol=0, atol=EXACT)
    weights = [torch.randn(2, 7, 5, dtype=torch.float64) for _ in ours]
    slopes, others = (torch.autograd.grad(pair, tensors, weights) for pair in (ours, reference))
    for slope, other in zip(slopes, others, strict=True):
        torch.testing.assert_close(slope, other, rtol=0, atol=EXACT)
    assert torch.autograd.gradcheck(lambda *given: gated_decay(*given, POWER, resets), tensors)
    error = max(
        np.abs(mine.detach().numpy() - theirs).max() for mine, theirs in zip(ours, in_numpy(resets), strict=True)
    )
    assert error < EXACT
    proof("RG-LRU's gates", "numpy", values=error)


def in_numpy(resets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Equations 1 to 4 with the paper's own Λ, the negative of the stored one."""
    gate, other, x, stored = (tensor.detach().numpy() for tensor in case())
    r, i = 1 / (1 + np.exp(-gate)), 1 / (1 + np.exp(-other))
    a = (1 / (1 + np.exp(stored))) ** (POWER * r)
    a, gamma = (np.where(resets.numpy(), edge, inner) for edge, inner in ((0, a), (1, np.sqrt(1 - a * a))))
    return a, gamma * i * x


def test_the_first_token_enters_as_it_is() -> None:
    decay_gate, input_gate, x, parameter = case()
    decay, inputs = gated_decay(decay_gate, input_gate, x, parameter, POWER, RESETS)
    first = RESETS[0, :, 0]
    assert not decay[:, first].any()
    torch.testing.assert_close(inputs[:, first], (torch.sigmoid(input_gate) * x)[:, first])
    assert bool((inputs[:, ~first].abs() < (torch.sigmoid(input_gate) * x)[:, ~first].abs()).all())


def test_the_root_is_no_steeper_than_a_thousand() -> None:
    x = torch.tensor([0.0, 1e-9, 0.25, 4.0], dtype=torch.float64, requires_grad=True)
    root = bounded_root(x)
    torch.testing.assert_close(root, x.sqrt())
    (slope,) = torch.autograd.grad(root.sum(), x)
    torch.testing.assert_close(slope, torch.tensor([STEEPEST, STEEPEST, 1.0, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("function", [gated_decay, gated_decay_reference])
def test_a_decay_that_rounds_to_one(function: object) -> None:
    """log a = -8e-9: 1 - a² is 1.6e-8, which 1 - exp(2 log a) in float32 calls zero; gradients stay finite."""
    size = (1, 2, 1)
    gates = [torch.zeros(size), torch.zeros(size), torch.ones(size), torch.full((1,), -20.0)]
    tensors = [tensor.requires_grad_() for tensor in gates]
    decay, inputs = function(*tensors, POWER, torch.zeros(1, 2, 1, dtype=torch.bool))  # type: ignore[operator]
    assert bool((decay == 1).all())
    expected = 0.5 * (2 * 4 * np.log1p(np.exp(-20))) ** 0.5
    torch.testing.assert_close(inputs, torch.full(size, expected).float(), rtol=1e-6, atol=0)
    (inputs + decay).sum().backward()
    assert all(bool(tensor.grad.isfinite().all()) for tensor in tensors if tensor.grad is not None)
