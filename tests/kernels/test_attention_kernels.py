"""Attention and differential attention: every route against the equation, in values and gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.proof import Proof
from windtunnel.kernels import blocked
from windtunnel.kernels.attention import attention, attention_reference
from windtunnel.kernels.differential import differential_attention, differential_attention_reference

SCALE = 0.37


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def tensors(h: int, g: int, t: int, s: int, k: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    return random(2, h, t, k), random(2, g, s, k, seed=1), random(2, g, s, v, seed=2)


def some_mask(kind: str, h: int, t: int, s: int) -> Tensor | None:
    shapes = {"table": (t, s), "rows": (2, 1, t, s), "heads": (2, h, t, s)}
    if kind == "none":
        return None
    return torch.rand(shapes[kind], generator=torch.Generator().manual_seed(5)) > 0.5  # some rows see nothing


def assert_same(ours: Tensor, reference: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, reference)
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(reference, inputs, weights)
    )


@pytest.mark.parametrize("mask", ["none", "table", "rows", "heads"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("h", "g", "t", "s", "k", "v"),
    [(2, 2, 5, 5, 4, 4), (4, 2, 70, 70, 3, 6), (4, 1, 130, 130, 4, 2), (4, 2, 3, 7, 4, 4), (2, 1, 1, 6, 4, 6)],
)
def test_attention(h: int, g: int, t: int, s: int, k: int, v: int, causal: bool, mask: str) -> None:
    inputs, table = tensors(h, g, t, s, k, v), some_mask(mask, h, t, s)
    ours = attention(*inputs, SCALE, table, causal)
    assert ours.shape == (2, h, t, v)
    assert_same(ours, attention_reference(*inputs, SCALE, table, causal), inputs)


def test_attention_by_hand_is_torchs() -> None:
    q, k, v = tensors(4, 2, 90, 90, 8, 8)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE, enable_gqa=True)
    assert_same(attention(q, k, v, SCALE, None, True), theirs, (q, k, v))


def test_a_causal_query_never_reads_later_keys() -> None:
    """Keys and values after a position are poisoned; nothing before it may change."""
    q, k, v = (x.detach().requires_grad_() for x in tensors(2, 2, 80, 80, 4, 4))
    clean = attention(q, k, v, SCALE, None, True)
    with torch.no_grad():
        k[:, :, 71:], v[:, :, 71:] = math.nan, math.nan
    poisoned = attention(q, k, v, SCALE, None, True)
    torch.testing.assert_close(poisoned[:, :, :64], clean[:, :, :64], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in tensors(2, 2, 9, 9, 4, 4))
    y = attention(q, k, v, SCALE, None, True)
    assert y.dtype == dtype
    y.sum().backward()
    assert q.grad is not None
    assert q.grad.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    reference = attention_reference(q.double(), k.double(), v.double(), SCALE, None, True)
    torch.testing.assert_close(y.double(), reference, rtol=tolerance, atol=tolerance)


def test_gradcheck() -> None:
    q, k, v = (x[:1] for x in tensors(2, 1, 5, 5, 2, 3))
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, SCALE, None, True), (q, k, v))
    pairs, keys, lam = random(1, 4, 5, 2), random(1, 2, 5, 2, seed=1), random(seed=3)
    assert torch.autograd.gradcheck(
        lambda q, k, v, lam: differential_attention(q, k, v, lam, SCALE, None, True), (pairs, keys, v, lam)
    )


@pytest.mark.parametrize("mask", ["none", "rows", "heads"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("h", "g", "t", "s", "d", "e"),
    [(2, 2, 5, 5, 4, 8), (4, 2, 70, 70, 3, 6), (4, 1, 130, 130, 2, 4), (2, 1, 3, 7, 4, 8)],
)
def test_differential_attention(h: int, g: int, t: int, s: int, d: int, e: int, causal: bool, mask: str) -> None:
    q, k = random(2, 2 * h, t, d), random(2, 2 * g, s, d, seed=1)
    v, lam, table = random(2, g, s, e, seed=2), random(seed=3), some_mask(mask, h, t, s)
    ours = differential_attention(q, k, v, lam, SCALE, table, causal)
    assert ours.shape == (2, h, t, e)
    assert_same(ours, differential_attention_reference(q, k, v, lam, SCALE, table, causal), (q, k, v, lam))


def test_differential_pairs_are_split_before_grouping() -> None:
    """Head by head, with plain softmax: sub-head 2i + m reads key sub-head 2 (i // n) + m."""
    h, g, t = 4, 2, 6
    q, k, v = random(1, 2 * h, t, 3), random(1, 2 * g, t, 3, seed=1), random(1, g, t, 6, seed=2)
    lam = torch.tensor(0.4, dtype=torch.float64)
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    expected = []
    for i in range(h):
        group = i // (h // g)
        maps = [
            (SCALE * q[:, 2 * i + m] @ k[:, 2 * group + m].mT).masked_fill(future, -math.inf).softmax(-1)
            for m in (0, 1)
        ]
        expected.append((maps[0] - lam * maps[1]) @ v[:, group])
    ours = differential_attention(q, k, v, lam, SCALE, None, True)
    torch.testing.assert_close(ours, torch.stack(expected, 1))


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize(("h", "g", "t", "d", "e"), [(2, 2, 150, 3, 6), (4, 2, 131, 2, 4), (3, 1, 64, 4, 5)])
def test_differential_attention_of_long_texts(
    h: int, g: int, t: int, d: int, e: int, documents: bool, monkeypatch: pytest.MonkeyPatch, proof: Proof
) -> None:
    """The route that keeps no map, at lengths of a few blocks."""
    monkeypatch.setattr(blocked, "LONGEST", 40)
    q, k = random(2, 2 * h, t, d), random(2, 2 * g, t, d, seed=1)
    v, lam = random(2, g, t, e, seed=2), random(seed=3)
    ids = (torch.arange(t) * torch.tensor([[3], [5]]) // t) if documents else None
    ours = differential_attention(q, k, v, lam, SCALE, None, True, ids)
    inputs = (q, k, v, lam)
    expected = differential_attention_reference(*inputs, SCALE, None, True, ids)
    weights = torch.randn(ours.shape, dtype=ours.dtype)
    slopes = list(zip(*(torch.autograd.grad(y, inputs, weights) for y in (ours, expected)), strict=True))
    for one, other in [(ours, expected), *slopes]:
        torch.testing.assert_close(one, other)
    proof(
        "differential attention, no map kept",
        "both maps written out",
        values=(ours - expected).abs().max().item(),
        gradients=max((one - other).abs().max().item() for one, other in slopes),
    )


def test_long_differential_attention_keeps_no_map() -> None:
    """What the backward pass is given grows with the length, not with its square."""
    held = []
    for t in (600, 1200):
        q, k, v = random(1, 4, t, 4), random(1, 4, t, 4, seed=1), random(1, 2, t, 8, seed=2)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            differential_attention(q, k, v, random(seed=3), SCALE, None, True)
        held.append(sum(sizes))
    assert held[1] < 2 * held[0] + 1
    assert max(sizes) <= 2 * q.numel()


@pytest.mark.parametrize("training", [False, True])
def test_differential_documents_are_masks(training: bool) -> None:
    q, k, v = random(2, 4, 40, 4), random(2, 4, 40, 4, seed=1), random(2, 2, 40, 8, seed=2)
    lam, ids = torch.tensor(0.3, dtype=torch.float64), torch.tensor([[0] * 11 + [1] * 29, [0] * 30 + [1] * 10])
    own = (ids[:, :, None] == ids[:, None, :]).unsqueeze(1)
    with torch.set_grad_enabled(training):
        found = [
            differential_attention(q, k, v, lam, SCALE, mask, True, documents)
            for mask, documents in ((own, None), (None, ids), (own, ids))
        ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize(
    ("h", "g", "t", "d", "e"), [(2, 2, 5, 16, 32), (4, 2, 130, 24, 48), (3, 1, 257, 64, 128), (1, 1, 100, 128, 256)]
)
def test_differential_attention_on_the_gpu(
    h: int, g: int, t: int, d: int, e: int, documents: bool, dtype: torch.dtype
) -> None:
    """The fused kernel against both maps written out in float64."""
    wide = (random(2, 2 * h, t, d), random(2, 2 * g, t, d, seed=1), random(2, g, t, e, seed=2), random(seed=3))
    wide = tuple(x.detach().cuda().requires_grad_() for x in wide)
    narrow = tuple(x.detach().to(dtype if x.dim() else torch.float32).requires_grad_() for x in wide)
    ids = (torch.arange(t) * torch.tensor([[3], [5]]) // t).cuda() if documents else None
    ours = differential_attention(*narrow, d**-0.5, None, True, ids)
    expected = differential_attention_reference(*wide, d**-0.5, None, True, ids)
    weights = torch.randn_like(expected)
    slopes = torch.autograd.grad(ours, narrow, weights.to(dtype))
    tolerance = 1e-4 if dtype == torch.float32 else 4e-2
    for one, other in [(ours, expected), *zip(slopes, torch.autograd.grad(expected, wide, weights), strict=True)]:
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)
