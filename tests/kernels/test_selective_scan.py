"""Mamba's recurrence in pieces against its equations, a numpy loop and finite differences."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests.proof import Proof
from windtunnel.kernels import selective_scan, selective_scan_reference

MODULE = importlib.import_module("windtunnel.kernels.selective_scan")
EXACT = 1e-12


def inputs(batch: int, length: int, width: int, states: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype)

    found = [
        normal(batch, length, width),
        F.softplus(normal(batch, length, width) - 1),
        -normal(width, states).exp(),
        normal(batch, length, states),
        normal(batch, length, states),
        normal(batch, states, width),
    ]
    return [each.detach().requires_grad_() for each in found]


def numpy_loop(given: list[Tensor], starts: Tensor | None) -> np.ndarray:
    """The paper's indices: state [d n] for each row."""
    u, step, rates, into, out_of, initial = (each.detach().numpy() for each in given)
    y = np.zeros_like(u)
    for b in range(u.shape[0]):
        state = initial[b].T.copy()
        for t in range(u.shape[1]):
            if starts is not None and starts[b, t]:
                state[:] = 0
            state = np.exp(step[b, t][:, None] * rates) * state + np.outer(step[b, t] * u[b, t], into[b, t])
            y[b, t] = state @ out_of[b, t]
    return y


@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 30),
    width=st.integers(1, 5),
    states=st.integers(1, 4),
    piece=st.integers(1, 200),
    documents=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=25)
def test_pieces_of_any_size_are_the_equations(
    batch: int, length: int, width: int, states: int, piece: int, documents: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    case = inputs(batch, length, width, states)
    starts = torch.rand(batch, length) < 0.2 if documents else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "PIECE", piece)
        y, last = selective_scan(*case, starts)
        weights = torch.randn_like(y), torch.randn_like(last)
        ours = torch.autograd.grad([y, last], case, weights)
    expected, final = selective_scan_reference(*case, starts)
    theirs = torch.autograd.grad([expected, final], case, weights, allow_unused=True)
    torch.testing.assert_close(y, expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(last, final, rtol=0, atol=EXACT)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("documents", [False, True])
def test_against_numpy_and_finite_differences(documents: bool, monkeypatch: pytest.MonkeyPatch, proof: Proof) -> None:
    monkeypatch.setattr(MODULE, "PIECE", 2 * 3 * 4 * 5)
    case = inputs(2, 13, 3, 4)
    starts = torch.rand(2, 13) < 0.25 if documents else None
    difference = (selective_scan(*case, starts)[0] - torch.from_numpy(numpy_loop(case, starts))).abs().max().item()
    assert difference < EXACT
    assert torch.autograd.gradcheck(lambda *given: selective_scan(*given, starts), case)
    proof("selective scan", "numpy loop", values=difference)


def test_bfloat16_inputs_are_scanned_in_float32() -> None:
    case = [each.detach() for each in inputs(2, 40, 8, 4, torch.float32)]
    u, step, rates, into, out_of, initial = case
    narrow = [u.bfloat16(), step, rates, into.bfloat16(), out_of.bfloat16(), initial]
    y, last = selective_scan(*narrow)
    assert (y.dtype, last.dtype) == (torch.float32, torch.float32)
    expected, _ = selective_scan_reference(*[each.float() for each in narrow])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_only_boundaries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the backward pass grows with the number of pieces, not with length x states."""
    case = inputs(2, 64, 8, 16)
    monkeypatch.setattr(MODULE, "PIECE", 2 * 8 * 16 * 16)  # 16 tokens
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        selective_scan(*case)
    assert kept <= 2 * sum(each.numel() for each in case[:5]) + 4 * 2 * 8 * 16
    assert kept < 2 * 64 * 8 * 16
