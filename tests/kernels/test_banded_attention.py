"""Attention in a sliding window: both routes against the equation with a mask over all keys, and against torch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.proof import Proof
from windtunnel.kernels import attention, banded
from windtunnel.kernels.banded import banded_attention, banded_attention_reference
from windtunnel.kernels.blocked import LONGEST

SCALE = 0.37
EXACT = {"rtol": 1e-11, "atol": 1e-12}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def tensors(h: int, g: int, t: int, s: int, k: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    return random(2, h, t, k), random(2, g, s, k, seed=1), random(2, g, s, v, seed=2)


def some_documents(s: int) -> Tensor:
    """Two rows whose documents end at different places."""
    return (torch.rand(2, s, generator=torch.Generator().manual_seed(3)) < 4 / s).cumsum(1)


def overlapping(
    q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor | None = None, slopes: Tensor | None = None
) -> Tensor:
    """The route of everything that is not training in float32 or float64 on a CPU, with gradients all the same."""
    return banded._overlapping(q, k, v, SCALE, window, documents, slopes)


def kept(
    q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor | None = None, slopes: Tensor | None = None
) -> Tensor:
    assert banded.keeps_maps(q, k, v, window)
    return banded_attention(q, k, v, SCALE, window, documents, slopes)


ROUTES = pytest.mark.parametrize("route", [overlapping, kept])


@ROUTES
@given(
    groups=st.integers(1, 2),
    repeats=st.integers(1, 2),
    queries=st.integers(1, 200),
    before=st.integers(0, 90),
    window=st.integers(1, 150),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    packed=st.booleans(),
    biased=st.booleans(),
)
@settings(max_examples=25)
def test_values_and_gradients(
    route: object,
    groups: int,
    repeats: int,
    queries: int,
    before: int,
    window: int,
    sizes: tuple[int, int],
    packed: bool,
    biased: bool,
) -> None:
    inputs = tensors(groups * repeats, groups, queries, queries + before, *sizes)
    documents = some_documents(queries + before) if packed else None
    slopes = torch.linspace(0.1, 0.5, groups * repeats) if biased else None
    ours = route(*inputs, window, documents, slopes)  # type: ignore[operator]
    expected = banded_attention_reference(*inputs, SCALE, window, documents, slopes)
    torch.testing.assert_close(ours, expected, **EXACT)
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9))
    gradients, theirs = (torch.autograd.grad(y, inputs, weights) for y in (ours, expected))
    torch.testing.assert_close(gradients, theirs, **EXACT)


@ROUTES
def test_against_torch_with_a_mask(route: object, proof: Proof) -> None:
    """SDPA over all keys, in float64, with the band written out pair by pair."""
    t, window = 150, 41
    q, k, v = tensors(4, 2, t, t, 8, 8)
    mask = torch.tensor([[i - window < j <= i for j in range(t)] for i in range(t)])
    theirs = F.scaled_dot_product_attention(q, k, v, mask, scale=SCALE, enable_gqa=True)
    ours = route(q, k, v, window)  # type: ignore[operator]
    values = (ours - theirs).abs().max().item()
    found, expected = (torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (ours, theirs))
    slopes = max((a - b).abs().max().item() / b.abs().max().item() for a, b in zip(found, expected, strict=True))
    assert max(values, slopes) < 1e-13
    proof("sliding windows by blocks", "torch SDPA with the band as a mask", values=values, gradients=slopes)


@ROUTES
def test_what_lies_outside_the_window_is_never_read(route: object) -> None:
    """Poison after a block and before its halo must not reach it, in values or in gradients."""
    t, window, block = 200, 30, slice(64, 128)
    q, k, v = (x.detach().requires_grad_() for x in tensors(2, 1, t, t, 4, 4))
    clean = route(q, k, v, window)[:, :, block]  # type: ignore[operator]
    slope = torch.autograd.grad(clean.sum(), q)[0]
    with torch.no_grad():
        for x in (k, v):
            x[:, :, 128:], x[:, :, : 64 - window + 1] = math.nan, math.nan
    poisoned = route(q, k, v, window)[:, :, block]  # type: ignore[operator]
    torch.testing.assert_close(poisoned, clean, rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(poisoned.sum(), q)[0][:, :, block], slope[:, :, block])


def test_gradcheck() -> None:
    q, k, v = (x[:1] for x in tensors(2, 1, 5, 7, 2, 3))
    assert torch.autograd.gradcheck(lambda q, k, v: kept(q, k, v, 3), (q, k, v))


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.numel())
        return made


@ROUTES
def test_no_tensor_grows_with_the_square_of_the_length(route: object) -> None:
    largest = {}
    for t in (1024, 4096):
        inputs = [x[:1].detach().requires_grad_() for x in tensors(1, 1, t, t, 4, 4)]
        with Largest() as seen:
            route(*inputs, 32).sum().backward()  # type: ignore[operator]
        largest[t] = seen.entries
    assert largest[4096] <= 4 * largest[1024] < 4096 * 4096 / 20


@pytest.mark.parametrize(
    ("queries", "keys", "window", "expected"),
    [
        (300, 300, 300, False),
        (300, 300, 299, False),
        (300, 300, 40, True),
        (1, 40, 39, False),
        (4096, 4096, 4000, True),
    ],
)
def test_blocks_are_taken_where_they_pay(queries: int, keys: int, window: int, expected: bool) -> None:
    assert banded.worth(queries, keys, window, kept=False) is expected
    assert banded.worth(queries, keys, window, kept=True) is (window < keys and queries > 1)


def test_the_route_of_kept_maps_is_for_training_on_a_cpu_in_short_windows() -> None:
    inputs = tensors(1, 1, 4, 4, 2, 2)
    assert banded.keeps_maps(*inputs, LONGEST)
    assert not banded.keeps_maps(*inputs, LONGEST + 1)
    assert not banded.keeps_maps(*(x.detach() for x in inputs), 3)
    assert not banded.keeps_maps(*(x.bfloat16() for x in inputs), 3)
    with torch.no_grad():
        assert not banded.keeps_maps(*inputs, 3)


def test_a_window_over_everything_is_plain_attention() -> None:
    q, k, v = tensors(2, 2, 90, 90, 4, 4)
    torch.testing.assert_close(kept(q, k, v, 90), attention(q, k, v, SCALE, None, True), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in tensors(2, 2, 90, 90, 4, 4))
    y = banded_attention(q, k, v, SCALE, 20)
    y.sum().backward()
    assert q.grad is not None
    assert y.dtype == q.grad.dtype == dtype
    expected = banded_attention_reference(q.double(), k.double(), v.double(), SCALE, 20)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
