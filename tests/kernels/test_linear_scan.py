"""The linear recurrence: the fast path, the loop and numpy's own loop, in values and gradients."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.proof import Proof
from windtunnel.kernels import scan_native
from windtunnel.kernels.linear_scan import _scan, linear_scan, linear_scan_reference
from windtunnel.kernels.scan_segments import scan_segments

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


@given(batch=st.integers(1, 3), length=st.integers(1, 150), width=st.integers(1, 9), cut=st.integers(0, 150))
@settings(max_examples=30)
def test_any_size_in_two_pieces(batch: int, length: int, width: int, cut: int) -> None:
    decay, inputs, initial = (tensor.detach() for tensor in case(batch, length, width, seed=cut))
    whole = linear_scan(decay, inputs, initial)
    torch.testing.assert_close(whole, linear_scan_reference(decay, inputs, initial), rtol=0, atol=EXACT)
    cut = min(cut, length - 1)
    if cut:
        first = linear_scan(decay[:, :cut], inputs[:, :cut], initial)
        rest = linear_scan(decay[:, cut:], inputs[:, cut:], first[:, -1])
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=0, atol=EXACT)


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


@pytest.mark.parametrize("length", [1, 2, 16, 17, 33, 34, 35, 64, 127, 257])
def test_backwards_in_segments(length: int) -> None:
    """The adjoint's own direction, at lengths about those where segments begin and end."""
    decay, inputs, initial = (tensor.detach() for tensor in case(2, length, 3))
    states = torch.full_like(inputs, torch.nan)
    scan_segments(decay, inputs, initial, states, reverse=True)
    expected = linear_scan_reference(decay.flip(1), inputs.flip(1), initial).flip(1)
    torch.testing.assert_close(states, expected, rtol=0, atol=EXACT)


def test_the_compiler_sees_one_operator() -> None:
    """Shapes, aliasing and gradients as torch.compile relies on them."""
    decay, inputs, initial = case(2, 40, 3)
    torch.library.opcheck(_scan, (decay, inputs, initial))
    torch.library.opcheck(_scan, (decay, inputs, None))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_compiled_operator(threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proof: Proof) -> None:
    monkeypatch.setenv(scan_native.SETTING, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    scan_native.library.cache_clear()
    assert scan_native.wanted(torch.empty(1))
    for started, (batch, length, width) in [(True, (3, 300, 70)), (False, (1, 300, 150)), (True, (2, 1, 1))]:
        decay, inputs, initial = case(batch, length, width)
        given = (decay, inputs, initial) if started else (decay, inputs)
        ours, loop = linear_scan(*given), linear_scan_reference(*given)
        torch.testing.assert_close(ours, loop, rtol=0, atol=EXACT)
        weights = torch.randn(ours.shape, dtype=ours.dtype)
        slopes = torch.autograd.grad(ours, given, weights)
        for slope, other in zip(slopes, torch.autograd.grad(loop, given, weights), strict=True):
            torch.testing.assert_close(slope, other, rtol=0, atol=EXACT)
        proof("linear scan, compiled", "the loop over equations", values=(ours - loop).abs().max().item())
    assert len(list((tmp_path / "windtunnel").iterdir())) == 1
    scan_native.library.cache_clear()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_compiler_without_openmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "plain-cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv(scan_native.SETTING, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", str(compiler))
    scan_native.library.cache_clear()
    assert scan_native.wanted(torch.empty(1))
    decay, inputs, initial = case(3, 40, 1100)
    ours = linear_scan(decay, inputs, initial)
    torch.testing.assert_close(ours, linear_scan_reference(decay, inputs, initial), rtol=0, atol=EXACT)
    scan_native.library.cache_clear()


def test_without_a_compiler_torch_goes_on_after_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(scan_native.SETTING, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    scan_native.library.cache_clear()
    decay, inputs, initial = case(2, 40, 3)
    with pytest.warns(RuntimeWarning, match="no compiler 'no-such-compiler'"):
        ours = linear_scan(decay, inputs, initial)
    linear_scan(decay, inputs, initial)  # a second warning would be an error
    torch.testing.assert_close(ours, linear_scan_reference(decay, inputs, initial), rtol=0, atol=EXACT)
    scan_native.library.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize(("length", "width"), [(1, 1), (31, 33), (257, 100)])
def test_on_the_gpu(started: bool, length: int, width: int) -> None:
    decay, inputs, initial = (tensor.detach().cuda().requires_grad_() for tensor in case(2, length, width))
    given = (decay, inputs, initial) if started else (decay, inputs)
    ours, loop = linear_scan(*given), linear_scan_reference(*given)
    torch.testing.assert_close(ours, loop, rtol=0, atol=EXACT)
    weights = torch.randn_like(ours)
    slopes = torch.autograd.grad(ours, given, weights)
    for slope, other in zip(slopes, torch.autograd.grad(loop, given, weights), strict=True):
        torch.testing.assert_close(slope, other, rtol=0, atol=EXACT)


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
