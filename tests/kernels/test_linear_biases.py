"""Attention with ALiBi's slopes: every route against the equation written with loops; slopes against transformers."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from tests.proof import Proof
from windtunnel.errors import InputError
from windtunnel.kernels.attention import attention, attention_reference, biases
from windtunnel.positions import Alibi

SCALE, SINGLE = 0.37, 5e-7  # theirs are float32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def tensors(h: int, g: int, t: int, s: int, k: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    return random(2, h, t, k), random(2, g, s, k, seed=1), random(2, g, s, v, seed=2)


def by_loops(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, mask: Tensor | None) -> np.ndarray:
    """The sum over keys, one query at a time, causal; a query that sees nothing gives zeros."""
    queries, keys, values = (x.detach().numpy() for x in (q, k, v))
    y = np.zeros((*queries.shape[:3], values.shape[-1]))
    ahead = keys.shape[2] - queries.shape[2]
    for b, h, t in np.ndindex(*queries.shape[:3]):
        group = h // (queries.shape[1] // keys.shape[1])
        seen = [s for s in range(t + ahead + 1) if mask is None or bool(mask[b, 0, t, s])]
        if seen:
            scores = [SCALE * queries[b, h, t] @ keys[b, group, s] - float(slopes[h]) * (t + ahead - s) for s in seen]
            weights = np.exp(scores - np.max(scores))
            y[b, h, t] = weights / weights.sum() @ values[b, group, seen]
    return y


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 3),
    repeats=st.integers(1, 3),
    t=st.integers(1, 70),
    before=st.integers(0, 5),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    masked=st.booleans(),
)
def test_routes(groups: int, repeats: int, t: int, before: int, widths: tuple[int, int], masked: bool) -> None:
    heads, s = groups * repeats, t + before
    inputs, slopes = tensors(heads, groups, t, s, *widths), Alibi().slopes(heads)
    mask = torch.rand((2, 1, t, s), generator=torch.Generator().manual_seed(5)) > 0.5 if masked else None
    expected = torch.from_numpy(by_loops(*inputs, slopes, mask))
    weights = random(*expected.shape, seed=9).detach()
    reference = attention_reference(*inputs, SCALE, mask, True, slopes)
    torch.testing.assert_close(reference.detach(), expected)
    ours = attention(*inputs, SCALE, mask, True, slopes)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(reference, inputs, weights)
    )
    with torch.no_grad():
        torch.testing.assert_close(attention(*inputs, SCALE, mask, True, slopes), expected)


@pytest.mark.parametrize("masked", ["none", "table", "rows"])
@pytest.mark.parametrize(("t", "s"), [(23, 23), (16, 16), (17, 30)])
@pytest.mark.parametrize("biased", [True, False])
def test_rows_at_a_time(t: int, s: int, masked: str, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts: blocks of 8 queries here, the last one short."""
    monkeypatch.setattr(sys.modules["windtunnel.kernels.attention"], "ROWS", 8)
    inputs, slopes = tensors(4, 2, t, s, 3, 5), Alibi().slopes(4) if biased else None
    shape = {"none": None, "table": (t, s), "rows": (2, 1, 1, s)}[masked]
    mask = None if shape is None else torch.rand(shape, generator=torch.Generator().manual_seed(5)) > 0.5
    with torch.no_grad():
        ours = attention(*inputs, SCALE, mask, True, slopes)
    torch.testing.assert_close(ours, attention_reference(*inputs, SCALE, mask, True, slopes))


def test_equal_content_fades_by_the_slope() -> None:
    """Equal scores: the weight of a key falls by exactly exp(-slope) with each step away."""
    ones, slopes = torch.ones(1, 3, 9, 2, dtype=torch.float64), Alibi().slopes(3)
    weights = attention(ones, ones, torch.eye(9, dtype=torch.float64).expand(1, 3, 9, 9), 1.0, None, True, slopes)
    last = weights[0, :, -1]
    torch.testing.assert_close(last[:, :-1] / last[:, 1:], (-slopes).exp()[:, None].expand(3, 8))


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (8, [2.0**-i for i in range(1, 9)]),
        (4, [1 / 4, 1 / 16, 1 / 64, 1 / 256]),
        (2, [1 / 16, 1 / 256]),
        (1, [1 / 256]),
        (6, [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]),
        (12, [*(2.0**-i for i in range(1, 9)), *(2.0 ** -(i - 0.5) for i in range(1, 5))]),
    ],
)
def test_slopes_of_the_paper(heads: int, expected: list[float]) -> None:
    torch.testing.assert_close(Alibi().slopes(heads), torch.tensor(expected, dtype=torch.float64))


def test_slopes_for_any_number_of_heads(proof: Proof) -> None:
    """Bloom's bias is slope j, MPT's slope (j - T + 1): slopes are differences along the keys."""
    for heads in range(1, 130):
        slopes = Alibi().slopes(heads)
        bloom = build_alibi_tensor(torch.ones(1, 9), heads, torch.float64)[:, 0]
        mpt = build_mpt_alibi_tensor(heads, 9).double()[:, 0]
        errors = [(theirs.diff() - slopes[:, None]).abs().max().item() for theirs in (bloom, mpt)]
        assert max(errors) < SINGLE
        proof("ALiBi slopes", "transformers build_alibi_tensor (Bloom)", values=errors[0])
        proof("ALiBi slopes", "transformers build_mpt_alibi_tensor", values=errors[1])
    half = build_mpt_alibi_tensor(12, 9, alibi_bias_max=4).double()[:, 0].diff()[:, 0]
    torch.testing.assert_close(Alibi(steepness=4).slopes(12), half, rtol=0, atol=SINGLE)


@pytest.mark.parametrize("heads", [4, 6])
def test_bloom_and_mpt_biases_are_the_same_after_the_softmax(heads: int) -> None:
    scores = random(heads, 9, 9).detach().masked_fill(torch.ones(9, 9, dtype=torch.bool).triu(1), -math.inf)
    ours = (scores + biases(Alibi().slopes(heads), 9, 9, torch.float64)).softmax(-1)
    bloom = build_alibi_tensor(torch.ones(1, 9), heads, torch.float64)
    for theirs in (bloom, build_mpt_alibi_tensor(heads, 9).double()):
        torch.testing.assert_close((scores + theirs).softmax(-1), ours, rtol=0, atol=SINGLE)


def test_steepness_must_be_positive() -> None:
    with pytest.raises(InputError, match=r"steepness.*positive.*0"):
        Alibi(steepness=0)
