"""The linear recurrence: the fast path, the loop and numpy's own loop, in values and gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.proof import Proof
from windtunnel.kernels.linear_scan import linear_scan, linear_scan_reference

EXACT = 1e-12  # float64: rounding of sums of some hundred terms


def case(
    batch: int, length: int, width: int, seed: int = 0, resets: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """decay in [0.01, 0.999] with zeros, inputs, an initial state; turned by random phases if complex."""
    draw = torch.Generator().manual_seed(seed)
    real = dtype.to_real()
    decay = (0.01 + 0.989 * torch.rand(batch, length, width, generator=draw, dtype=real)).to(dtype)
    if dtype.is_complex:
        decay = decay * torch.exp(2j * torch.pi * torch.rand(batch, length, width, generator=draw, dtype=real))
    if resets:
        decay = decay * (torch.rand(batch, length, 1, generator=draw) > 0.1)
    inputs = torch.randn(batch, length, width, generator=draw, dtype=dtype)
    initial = torch.randn(batch, width, generator=draw, dtype=dtype)
    return decay.requires_grad_(), inputs.requires_grad_(), initial.requires_grad_()


def by_numpy(decay: Tensor, inputs: Tensor, initial: Tensor | None) -> Tensor:
    a, x = decay.detach().numpy(), inputs.detach().numpy()
    h = np.zeros_like(x[:, 0]) if initial is None else initial.detach().numpy()
    states = np.empty_like(x)
    for step in range(x.shape[1]):
        h = a[:, step] * h + x[:, step]
        states[:, step] = h
    return torch.from_numpy(states)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("started", [True, False])
def test_the_scan_is_the_recurrence(dtype: torch.dtype, started: bool, proof: Proof) -> None:
    decay, inputs, initial = case(2, 257, 5, dtype=dtype)
    given = (decay, inputs, initial) if started else (decay, inputs)
    ours, loop = linear_scan(*given), linear_scan_reference(*given)
    expected = by_numpy(decay, inputs, initial if started else None)
    torch.testing.assert_close(ours, loop, rtol=0, atol=EXACT)
    torch.testing.assert_close(ours.detach(), expected, rtol=0, atol=EXACT)
    weights = torch.randn(ours.shape, dtype=dtype)
    slopes = torch.autograd.grad(ours, given, weights)
    for slope, other in zip(slopes, torch.autograd.grad(loop, given, weights), strict=True):
        torch.testing.assert_close(slope, other, rtol=0, atol=EXACT)
    proof("linear scan", "numpy loop", values=((ours - expected).abs().max() / expected.abs().max()).item())


@given(batch=st.integers(1, 3), length=st.integers(1, 40), width=st.integers(1, 9), cut=st.integers(0, 40))
@settings(max_examples=20)
def test_any_size_in_two_pieces(batch: int, length: int, width: int, cut: int) -> None:
    decay, inputs, initial = (tensor.detach() for tensor in case(batch, length, width, seed=cut))
    whole = linear_scan(decay, inputs, initial)
    torch.testing.assert_close(whole, linear_scan_reference(decay, inputs, initial), rtol=0, atol=EXACT)
    cut = min(cut, length - 1)
    if cut:
        first = linear_scan(decay[:, :cut], inputs[:, :cut], initial)
        rest = linear_scan(decay[:, cut:], inputs[:, cut:], first[:, -1])
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_by_differences(dtype: torch.dtype) -> None:
    decay, inputs, initial = case(2, 7, 3, dtype=dtype)
    assert torch.autograd.gradcheck(linear_scan, (decay, inputs, initial))
    assert torch.autograd.gradcheck(linear_scan, (decay, inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_an_expanded_decay_and_strided_tensors(dtype: torch.dtype) -> None:
    """A constant decay as the LRU has it, and tensors in time-major order."""
    decay, inputs, initial = case(2, 33, 6, resets=False, dtype=dtype)
    constant = decay[:1, :1].detach().clone().requires_grad_()
    turned = inputs.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    given = (constant, turned, initial)
    ours = linear_scan(constant.expand_as(turned), turned, initial)
    loop = linear_scan_reference(constant.expand_as(turned), turned, initial)
    weights = torch.randn(6, 33, 2, dtype=dtype).permute(2, 1, 0)
    torch.testing.assert_close(ours, loop, rtol=2e-5, atol=2e-5)
    for slope, other in zip(
        torch.autograd.grad(ours, given, weights), torch.autograd.grad(loop, given, weights), strict=True
    ):
        torch.testing.assert_close(slope, other, rtol=1e-4, atol=1e-4)


def test_the_states_of_white_noise_have_the_variance_that_the_decay_says() -> None:
    """With x = sqrt(1 - a²) ξ the states are as wide as ξ (Griffin, section 2.4)."""
    decay = torch.full((1, 4096, 64), 0.95, dtype=torch.float64)
    noise = torch.randn(decay.shape, dtype=torch.float64)
    states = linear_scan(decay, (1 - decay.square()).sqrt() * noise)
    assert states[:, 200:].var().item() == pytest.approx(1, abs=0.03)


def test_refusals() -> None:
    decay, inputs, initial = case(2, 3, 4)
    with pytest.raises(ValueError, match="bfloat16"):
        linear_scan(decay.bfloat16(), inputs.bfloat16())
    with pytest.raises(ValueError, match="decay"):
        linear_scan(decay[:, :2], inputs)
    with pytest.raises(ValueError, match="float32"):
        linear_scan(decay.float(), inputs)
    with pytest.raises(ValueError, match="initial"):
        linear_scan(decay, inputs, initial[:1])
