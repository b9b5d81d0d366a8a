"""The fused unembedding and cross-entropy: against torch's, whole and in chunks."""

import importlib

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.kernels.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
    linear_token_losses,
)

TARGETS = torch.tensor([0, -1, 3, 8, 8, 2, -1])


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.fixture(params=[1, 2, 3, 100], ids=lambda rows: f"{rows} rows a chunk")
def _chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(linear_cross_entropy.__module__)
    monkeypatch.setattr(module, "_rows", lambda n, vocabulary, device: min(n, request.param))


@pytest.mark.usefixtures("_chunked")
@pytest.mark.parametrize("soft_cap", [None, 1.5])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("biased", [False, True])
def test_equals_reference(soft_cap: float | None, z_loss: float, biased: bool) -> None:
    hidden, weight, bias = random(7, 4), random(9, 4, seed=1), random(9, seed=2) if biased else None
    inputs = [x for x in (hidden, weight, bias) if x is not None]
    ours = linear_cross_entropy(hidden, weight, TARGETS, bias, soft_cap, z_loss)
    reference = linear_cross_entropy_reference(hidden, weight, TARGETS, bias, soft_cap, z_loss)
    torch.testing.assert_close(ours, reference)
    for shares in [(1.0, 1.0), (2.0, 2.0), (1.0, -3.0)]:
        gradients = [
            torch.autograd.grad(shares[0] * y[0] + shares[1] * y[1], inputs, retain_graph=True)
            for y in (ours, reference)
        ]
        torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("_chunked")
def test_equals_torch_without_our_code() -> None:
    hidden, weight = random(7, 4), random(9, 4, seed=1)
    theirs = F.cross_entropy(hidden @ weight.T, TARGETS, ignore_index=-1)
    ours, z_term = linear_cross_entropy(hidden, weight, TARGETS)
    torch.testing.assert_close(ours, theirs)
    assert z_term == 0
    torch.testing.assert_close(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(theirs, (hidden, weight))
    )
    each = linear_token_losses(hidden, weight, TARGETS)
    torch.testing.assert_close(each, F.cross_entropy(hidden @ weight.T, TARGETS, ignore_index=-1, reduction="none"))
    assert not each.requires_grad


def test_gradcheck() -> None:
    inputs = (random(7, 4), random(9, 4, seed=1), random(9, seed=2))
    assert torch.autograd.gradcheck(
        lambda hidden, weight, bias: linear_cross_entropy(hidden, weight, TARGETS, bias, 2.0, 0.1), inputs
    )


def test_no_gradient_no_target_and_extreme_logits() -> None:
    hidden, weight = random(7, 4), random(9, 4, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(
            linear_cross_entropy(hidden, weight, TARGETS, z_loss=0.1),
            linear_cross_entropy_reference(hidden, weight, TARGETS, z_loss=0.1),
        )
    loss, _ = linear_cross_entropy(hidden, weight, torch.full((7,), -1))
    assert loss == 0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, (hidden, weight)))
    huge = random(7, 4, dtype=torch.float32).detach() * 1000
    narrow = weight.detach().float()
    expected = F.cross_entropy(huge @ narrow.T, TARGETS, ignore_index=-1)
    torch.testing.assert_close(linear_cross_entropy(huge, narrow, TARGETS)[0], expected)


def test_autocast_multiplies_in_its_dtype_and_sums_in_float32() -> None:
    hidden, weight = random(7, 4, dtype=torch.float32), random(9, 4, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, weight, TARGETS)
    assert loss.dtype == torch.float32
    narrow = (hidden.bfloat16() @ weight.bfloat16().T).float()
    torch.testing.assert_close(loss, F.cross_entropy(narrow, TARGETS, ignore_index=-1))
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32


def test_meta_device() -> None:
    hidden, weight = (torch.empty(7, 4, device="meta", requires_grad=True) for _ in range(2))
    linear_cross_entropy(hidden, weight, TARGETS.to("meta"))[0].backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == (7, 4)
