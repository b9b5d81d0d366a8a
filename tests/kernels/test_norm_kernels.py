"""RMSNorm and the unit norm: against their equations and torch's own, in values and gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.kernels.rms_norm import (
    rms_norm,
    rms_norm_reference,
    scaled_unit_norm,
    scaled_unit_norm_reference,
    unit_norm,
    unit_norm_reference,
)

SINGLE = {"rtol": 2e-5, "atol": 2e-5}


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    values = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_()


@pytest.mark.parametrize("shape", [(7,), (5, 1), (3, 5, 7), (2, 3, 4, 33)])
@pytest.mark.parametrize("learned", [True, False])
def test_rms_norm_equals_reference_and_torch(shape: tuple[int, ...], learned: bool) -> None:
    x, gain = random(*shape), random(shape[-1], seed=1) if learned else None
    inputs = [x] if gain is None else [x, gain]
    results = [
        rms_norm(x, gain, 1e-5),
        rms_norm_reference(x, gain, 1e-5),
        F.rms_norm(x, (shape[-1],), gain, 1e-5),
    ]
    weights = random(*shape, seed=2).detach()
    gradients = [torch.autograd.grad(y, inputs, weights) for y in results]
    for other, gradient in zip(results[1:], gradients[1:], strict=True):
        torch.testing.assert_close(results[0], other)
        torch.testing.assert_close(gradients[0], gradient)


def test_rms_norm_float32_gradients() -> None:
    x, gain = random(512, 48, dtype=torch.float32), random(48, dtype=torch.float32, seed=1)
    weights = random(512, 48, dtype=torch.float32, seed=2).detach()
    ours = torch.autograd.grad(rms_norm(x, gain, 1e-6), (x, gain), weights)
    wide = torch.autograd.grad(rms_norm(x.double(), gain.double(), 1e-6), (x, gain), weights.double())
    torch.testing.assert_close(ours, wide, rtol=2e-5, atol=1e-4)


def test_rms_norm_gradcheck() -> None:
    assert torch.autograd.gradcheck(lambda x, gain: rms_norm(x, gain, 1e-5), (random(3, 5), random(5, seed=1)))
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, None, 1e-5), (random(3, 5),))
    assert torch.autograd.gradcheck(unit_norm, (random(3, 5),))


def test_half_precision_is_computed_in_float32() -> None:
    x = random(64, 32, dtype=torch.float32).detach().mul(300).to(torch.float16).requires_grad_()
    gain = random(32, dtype=torch.float32, seed=1)
    y = rms_norm(x, gain, 1e-6)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, rms_norm_reference(x.float(), gain, 1e-6).half())
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float16
    assert gain.grad is not None
    assert gain.grad.dtype == torch.float32


def test_strided_input_and_gradient() -> None:
    base, gain = random(4, 6, 3), random(4, seed=1)
    x = base.permute(1, 2, 0)
    weights = random(4, 6, 3, seed=2).detach().permute(1, 2, 0)
    ours = torch.autograd.grad(rms_norm(x, gain, 1e-5), (base, gain), weights)
    torch.testing.assert_close(ours, torch.autograd.grad(rms_norm_reference(x, gain, 1e-5), (base, gain), weights))


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_unit_norm(eps: float) -> None:
    x, weights = random(3, 4, 5), random(3, 4, 5, seed=2).detach()
    with torch.no_grad():
        x[0, 0] *= 1e-5  # shorter than the larger eps
    ours, reference = unit_norm(x, eps), unit_norm_reference(x, eps)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(ours, F.normalize(x, dim=-1, eps=eps))
    torch.testing.assert_close(torch.autograd.grad(ours, x, weights), torch.autograd.grad(reference, x, weights))


def test_no_gradient_and_meta_routes() -> None:
    x, gain = random(3, 5), random(5, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x, gain, 1e-5), rms_norm_reference(x, gain, 1e-5))
    x, gain = torch.empty(3, 5, device="meta", requires_grad=True), torch.empty(5, device="meta", requires_grad=True)
    (rms_norm(x, gain, 1e-5).sum() + unit_norm(x).sum()).backward()
    assert x.grad is not None
    assert x.grad.shape == (3, 5)


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    x, gain = random(3, 5), random(5, seed=1)
    compiled = torch.compile(lambda x, gain: unit_norm(rms_norm(x, gain, 1e-5)), fullgraph=True)
    ours, plain = compiled(x, gain), unit_norm(rms_norm(x, gain, 1e-5))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sin().sum(), (x, gain)), torch.autograd.grad(plain.sin().sum(), (x, gain))
    )


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 3, 5, 7), (3, 1, 1, 33)])
@pytest.mark.parametrize("spread", [(1, 2), (0, 1, 2), ()])
def test_scaled_unit_norm_is_the_norm_times_the_scale(shape: tuple[int, ...], spread: tuple[int, ...]) -> None:
    """A scale for each head, for each feature, for each number."""
    x = random(*shape)
    scale = random(*(1 if axis in spread else size for axis, size in enumerate(shape)), seed=1)
    results = [scaled_unit_norm(x, scale), scaled_unit_norm_reference(x, scale), F.normalize(x, dim=-1) * scale]
    weights = random(*shape, seed=2).detach()
    gradients = [torch.autograd.grad(y, (x, scale), weights) for y in results]
    for other, gradient in zip(results[1:], gradients[1:], strict=True):
        torch.testing.assert_close(results[0], other)
        torch.testing.assert_close(gradients[0], gradient)


def test_scaled_unit_norm_in_half_precision() -> None:
    x, scale = random(64, 32, dtype=torch.float32).bfloat16(), random(1, 32, dtype=torch.float32, seed=1)
    y = scaled_unit_norm(x, scale)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, scaled_unit_norm_reference(x.float(), scale).bfloat16())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rms_norm_without_gradients(dtype: torch.dtype) -> None:
    x, gain = random(2, 3, 33).detach().to(dtype), random(33, seed=1).detach()
    wanted = F.rms_norm(x.double(), (33,), gain, 1e-2).to(dtype)
    with torch.inference_mode():
        found = rms_norm(x, gain.to(torch.promote_types(dtype, torch.float32)), 1e-2)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted)
    trained = rms_norm(x.clone().requires_grad_(), gain.to(torch.promote_types(dtype, torch.float32)), 1e-2)
    torch.testing.assert_close(trained.detach(), found)  # nothing made for inference stays behind
