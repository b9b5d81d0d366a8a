"""Attention to the largest scores: against the equation, loops in plain Python, and texts that go on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.proof import Proof
from windtunnel.kernels import attention_reference, top_k_attention, top_k_attention_reference

SCALE = 0.37
EXACT = {"rtol": 1e-11, "atol": 1e-12}


def tensors(h: int, g: int, t: int, s: int, k: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, h, t, k), (2, g, s, k), (2, g, s, v))
    q, keys, values = (torch.randn(x, dtype=torch.float64, generator=draw).requires_grad_() for x in shapes)
    return q, keys, values


@given(
    groups=st.integers(1, 2),
    repeats=st.integers(1, 2),
    queries=st.integers(1, 150),
    before=st.integers(0, 30),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    top=st.integers(1, 40),
    packed=st.booleans(),
)
@settings(max_examples=25)
def test_values_and_gradients(
    groups: int, repeats: int, queries: int, before: int, sizes: tuple[int, int], top: int, packed: bool
) -> None:
    s = queries + before
    inputs = tensors(groups * repeats, groups, queries, s, *sizes)
    mask = None
    if packed:
        documents = (torch.rand(2, s, generator=torch.Generator().manual_seed(1)) < 0.1).cumsum(1)
        mask = documents[:, None, before:, None] == documents[:, None, None, :]
    ours = top_k_attention(*inputs, SCALE, top, mask)
    expected = top_k_attention_reference(*inputs, SCALE, top, mask)
    torch.testing.assert_close(ours, expected, **EXACT)
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9))
    gradients, theirs = (torch.autograd.grad(y, inputs, weights) for y in (ours, expected))
    torch.testing.assert_close(gradients, theirs, **EXACT)


def test_against_sorted_lists(proof: Proof) -> None:
    """Each row of each head by itself, in Python's floats."""
    t, top = 70, 6
    q, k, v = tensors(2, 1, t, t, 3, 2)
    ours, error = top_k_attention(q, k, v, SCALE, top), 0.0
    for row, head, i in ((0, 0, 0), (0, 1, 4), (1, 0, 5), (1, 1, 37), (0, 0, 69)):
        scores = [SCALE * sum(map(lambda a, b: a * b, q[row, head, i].tolist(), key)) for key in k[row, 0].tolist()]
        best = sorted(range(i + 1), key=lambda j: -scores[j])[:top]
        total = sum(math.exp(scores[j]) for j in best)
        expected = [sum(math.exp(scores[j]) / total * v[row, 0, j, e].item() for j in best) for e in range(2)]
        error = max(error, max(abs(a - b) for a, b in zip(ours[row, head, i].tolist(), expected, strict=True)))
    assert error < 1e-12
    proof("top-k attention", "sorted lists in Python", values=error)


@pytest.mark.parametrize("top", [70, 1000])
def test_all_of_them_is_full_attention(top: int) -> None:
    inputs = tensors(4, 2, 70, 70, 4, 4)
    torch.testing.assert_close(
        top_k_attention(*inputs, SCALE, top), attention_reference(*inputs, SCALE, causal=True), **EXACT
    )


@pytest.mark.parametrize("top", [1, 3])
def test_ties_are_kept_whatever_follows(top: int) -> None:
    """Equal keys get equal weights, and as many in a longer text."""
    q, k, v = (x.detach() for x in tensors(1, 1, 90, 90, 4, 4))
    k = k[:, :, :5].repeat(1, 1, 18, 1)
    long = top_k_attention(q, k, v, SCALE, top)
    for length in (7, 64, 65):
        short = top_k_attention(q[:, :, :length], k[:, :, :length], v[:, :, :length], SCALE, top)
        torch.testing.assert_close(short, long[:, :, :length], **EXACT)
    torch.testing.assert_close(long, top_k_attention_reference(q, k, v, SCALE, top), **EXACT)


def test_nothing_later_is_read() -> None:
    q, k, v = (x.detach() for x in tensors(2, 2, 130, 130, 4, 4))
    clean = top_k_attention(q, k, v, SCALE, 4)
    k[:, :, 71:], v[:, :, 71:] = 9.0, math.nan
    assert torch.equal(top_k_attention(q, k, v, SCALE, 4)[:, :, :64], clean[:, :, :64])


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.numel())
        return made


def test_no_table_of_all_scores_is_made() -> None:
    inputs = [x[:1].detach().requires_grad_() for x in tensors(1, 1, 2048, 2048, 4, 4)]
    with Largest() as seen:
        top_k_attention(*inputs, SCALE, 16).sum().backward()
    assert seen.entries <= 64 * 2048


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in tensors(4, 2, 20, 20, 4, 4))
    y = top_k_attention(q, k, v, SCALE, 20)
    y.sum().backward()
    assert q.grad is not None
    assert y.dtype == q.grad.dtype == dtype
    expected = top_k_attention_reference(q.double(), k.double(), v.double(), SCALE, 20)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
