"""The diagonal state-space model: recurrence in pieces, convolution, and documents, against the equations."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.proof import Proof
from windtunnel.kernels import (
    causal_convolution,
    diagonal_ssm,
    diagonal_ssm_reference,
    document_segments,
    impulse_response,
)

MODULE = importlib.import_module("windtunnel.kernels.diagonal_ssm")
EXACT = 1e-12


def inputs(batch: int, length: int, heads: int, channels: int, modes: int) -> list[Tensor]:
    radius = torch.rand(heads, modes, dtype=torch.float64) * 0.98 + 0.01
    poles = torch.polar(radius, torch.randn(heads, modes, dtype=torch.float64))
    found = [
        torch.randn(batch, length, heads, channels, dtype=torch.float64),
        poles,
        torch.randn(heads, modes, dtype=torch.complex128),
        torch.randn(batch, modes, heads, channels, dtype=torch.complex128),
    ]
    return [each.detach().requires_grad_() for each in found]


@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 30),
    heads=st.integers(1, 3),
    channels=st.integers(1, 3),
    modes=st.integers(1, 4),
    piece=st.integers(1, 300),
    seed=st.integers(0, 9),
)
@settings(max_examples=20)
def test_pieces_of_any_size_are_the_equations(
    batch: int, length: int, heads: int, channels: int, modes: int, piece: int, seed: int
) -> None:
    torch.manual_seed(seed)
    case = inputs(batch, length, heads, channels, modes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "PIECE", piece)
        y, last = diagonal_ssm(*case)
        weights = torch.randn_like(y), torch.randn_like(last)
        ours = torch.autograd.grad([y, last], case, weights)
    expected, final = diagonal_ssm_reference(*case)
    theirs = torch.autograd.grad([expected, final], case, weights)
    torch.testing.assert_close(y, expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(last, final, rtol=EXACT, atol=EXACT)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)


@given(
    ids=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    other=st.lists(st.integers(0, 2), min_size=40, max_size=40),
    seed=st.integers(0, 9),
)
@settings(max_examples=20)
def test_documents_convolved_alone_are_the_recurrence_with_resets(ids: list[int], other: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    documents = torch.tensor([ids, other[: len(ids)]]).cumsum(1)
    starts = torch.diff(documents, dim=1, prepend=documents[:, :1]) != 0
    x, poles, weights, _ = inputs(2, len(ids), 2, 3, 2)
    kernel = impulse_response(poles, weights, len(ids))
    ours = causal_convolution(x, kernel[..., None], document_segments(documents))
    expected, _ = diagonal_ssm_reference(x, poles, weights, starts=starts)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)
    slopes = torch.randn_like(ours)
    leaves = [x, poles, weights]
    pairs = (torch.autograd.grad(form, leaves, slopes) for form in (ours, expected))
    for one, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(one, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("taps", [1, 3, 64])
def test_convolution_is_numpys(taps: int, proof: Proof) -> None:
    x, kernel = torch.randn(2, 33, 5, dtype=torch.float64), torch.randn(taps, 5, dtype=torch.float64)
    ours = causal_convolution(x, kernel)
    expected = np.stack([[np.convolve(x[b, :, d], kernel[:, d])[:33] for d in range(5)] for b in range(2)]).transpose(
        0, 2, 1
    )
    difference = (ours - torch.from_numpy(expected)).abs().max().item()
    assert difference < EXACT
    proof("causal convolution by FFT", "numpy.convolve", values=difference)


def test_segments_hold_every_token_once_and_little_else() -> None:
    documents = torch.cat([torch.randint(0, 2, (3, 200)).cumsum(1), torch.zeros(3, 70, dtype=torch.int64) + 999], dim=1)
    seen = torch.cat([index[held] for index, held in document_segments(documents)])
    assert torch.equal(seen.sort().values, torch.arange(documents.numel()))
    assert sum(held.numel() for _, held in document_segments(documents)) < 2 * documents.numel()
