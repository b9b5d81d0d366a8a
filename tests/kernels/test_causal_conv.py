"""The causal convolution against its equation and torch's Conv1d; past tokens, and documents."""

from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.proof import Proof
from windtunnel.kernels.causal_conv import causal_conv, causal_conv_reference

EXACT = 1e-12


def random(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_()


def documents_of(batch: int, length: int, seed: int = 0) -> Tensor:
    """Documents of three tokens in the mean; ids may come again."""
    starts = torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 0.3
    return starts.cumsum(1) % 3


@given(
    length=st.integers(1, 12),
    taps=st.integers(1, 5),
    width=st.integers(1, 4),
    biased=st.booleans(),
    mode=st.sampled_from(["alone", "past", "documents", "past and documents"]),
    by_hand=st.booleans(),
)
@settings(max_examples=40)
def test_values_and_gradients(length: int, taps: int, width: int, biased: bool, mode: str, by_hand: bool) -> None:
    x, weight, bias = random(2, length, width), random(width, taps, seed=1), random(width, seed=2) if biased else None
    past = random(2, taps - 1, width, seed=3) if "past" in mode else None
    before = length % 4 if "past" in mode else 0
    documents = documents_of(2, before + length, seed=length) if "documents" in mode else None
    inputs = [tensor for tensor in (x, weight, bias, past) if tensor is not None and tensor.numel()]
    with patch("windtunnel.kernels.causal_conv.by_hand", lambda x: by_hand):
        ours = causal_conv(x, weight, bias, past, documents)
    reference = causal_conv_reference(x, weight, bias, past, documents)
    torch.testing.assert_close(ours, reference, rtol=0, atol=EXACT)
    weights = random(*ours.shape, seed=4).detach()
    slopes = torch.autograd.grad(ours, inputs, weights, materialize_grads=True)
    expected = torch.autograd.grad(reference, inputs, weights, materialize_grads=True)
    for slope, other in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, other, rtol=0, atol=EXACT)


def test_torch_conv1d(proof: Proof) -> None:
    x = random(2, 11, 6)
    module = nn.Conv1d(6, 6, 4, groups=6, padding=3, dtype=torch.float64)
    assert module.bias is not None
    expected = module(x.transpose(1, 2))[..., :11].transpose(1, 2)
    ours = causal_conv(x, module.weight[:, 0], module.bias)
    torch.testing.assert_close(ours, expected, rtol=0, atol=EXACT)
    inputs, weights = (x, module.weight, module.bias), random(2, 11, 6, seed=5).detach()
    slopes = zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    )
    errors = [((slope - other).abs().max() / other.abs().max()).item() for slope, other in slopes]
    assert max(errors) < EXACT
    error = ((ours - expected).abs().max() / expected.abs().max()).item()
    proof("causal convolution", "torch.nn.Conv1d", values=error, gradients=max(errors))


def test_packed_documents_are_as_alone() -> None:
    x, weight, bias = random(1, 12, 3).detach(), random(3, 4, seed=1), random(3, seed=2)
    documents = torch.tensor([[0] * 2 + [1] * 6 + [0] * 4])
    packed = causal_conv(x, weight, bias, documents=documents)
    alone = [causal_conv(part, weight, bias) for part in x.split((2, 6, 4), dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=0, atol=EXACT)


@given(length=st.integers(2, 12), at=st.integers(1, 11), taps=st.integers(2, 5))
def test_a_row_in_two_parts_is_as_whole(length: int, at: int, taps: int) -> None:
    at = min(at, length - 1)
    x, weight, documents = random(2, length, 3).detach(), random(3, taps, seed=1), documents_of(2, length, seed=at)
    whole = causal_conv(x, weight, documents=documents)
    padded = torch.cat([x.new_zeros(2, taps - 1, 3), x[:, :at]], 1)
    second = causal_conv(x[:, at:], weight, past=padded[:, -(taps - 1) :], documents=documents)
    torch.testing.assert_close(second, whole[:, at:], rtol=0, atol=EXACT)
