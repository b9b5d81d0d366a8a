"""Linear attention: the table of pairs in numpy, the step-by-step form and the chunked one; and the identities."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.proof import Proof
from windtunnel.kernels import (
    causal_efficient_attention,
    causal_efficient_attention_recurrent,
    causal_efficient_attention_reference,
    efficient_attention,
    linear_attention,
    linear_attention_recurrent,
    linear_attention_reference,
)

EXACT = 1e-12  # float64: rounding of sums of some hundred terms, values of order 1

Forward = Callable[..., Any]


def separate(*heads: Tensor, **given: Any) -> Any:
    return causal_efficient_attention(*heads, joint=False, **given)


def joint(*heads: Tensor, **given: Any) -> Any:
    return causal_efficient_attention(*heads, joint=True, **given)


def separate_recurrent(*heads: Tensor, **given: Any) -> Any:
    return causal_efficient_attention_recurrent(*heads, joint=False, **given)


def joint_recurrent(*heads: Tensor, **given: Any) -> Any:
    return causal_efficient_attention_recurrent(*heads, joint=True, **given)


def separate_reference(*heads: Tensor, starts: Tensor | None = None) -> Tensor:
    return causal_efficient_attention_reference(*heads, joint=False, starts=starts)


def joint_reference(*heads: Tensor, starts: Tensor | None = None) -> Tensor:
    return causal_efficient_attention_reference(*heads, joint=True, starts=starts)


FORMS: dict[str, tuple[Forward, Forward, Forward]] = {
    "sums": (linear_attention, linear_attention_recurrent, linear_attention_reference),
    "separate": (separate, separate_recurrent, separate_reference),
    "joint": (joint, joint_recurrent, joint_reference),
}
every_form = pytest.mark.parametrize("form", FORMS)


def heads(length: int, batch: int = 2, key: int = 6, value: int = 5, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = (batch, 3, length, key), (batch, 3, length, key), (batch, 3, length, value)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]


def boundaries(length: int, batch: int = 2, seed: int = 0) -> Tensor:
    """Document starts, a few a row, two of them side by side, none at the first token."""
    starts = torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 0.1
    starts[0, 5:7] = True
    starts[:, 0] = False
    return starts


def by_numpy(form: str, q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> Tensor:
    """Weights of each query by the definitions, one query at a time, from nothing but its own document's past."""
    qs, ks, vs = (x.detach().numpy() for x in (q, k, v))
    y = np.zeros(vs.shape)
    for row, head, t in np.ndindex(*qs.shape[:3]):
        begun = 0 if starts is None else max([0, *np.flatnonzero(starts[row, : t + 1].numpy())])
        keys, values = ks[row, head, begun : t + 1], vs[row, head, begun : t + 1]
        query = qs[row, head, t]
        if form == "sums":
            y[row, head, t] = (keys @ query) @ values
        elif form == "separate":
            each = np.exp(keys) / np.exp(keys).sum(0)
            y[row, head, t] = (each @ (np.exp(query) / np.exp(query).sum())) @ values
        else:
            weights = np.exp(keys) @ np.exp(query)
            y[row, head, t] = (weights / weights.sum()) @ values
    return torch.from_numpy(y)


@every_form
@pytest.mark.parametrize("packed", [False, True])
def test_three_orders_are_one_function(form: str, packed: bool, proof: Proof) -> None:
    chunked, recurrent, reference = FORMS[form]
    given, starts = heads(77), boundaries(77) if packed else None
    expected = by_numpy(form, *given, starts)
    table, (stepped, last) = reference(*given, starts=starts), recurrent(*given, starts=starts)
    torch.testing.assert_close(table.detach(), expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(stepped, table, rtol=0, atol=EXACT)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    slopes = torch.autograd.grad(table, given, weights, retain_graph=True)
    worst = 0.0
    for chunk in (1, 2, 16, 32, 128):
        y, state = chunked(*given, starts=starts, chunk=chunk)
        torch.testing.assert_close(y, table, rtol=0, atol=EXACT)
        torch.testing.assert_close(state, last, rtol=0, atol=EXACT)
        for ours, theirs in zip(torch.autograd.grad(y, given, weights), slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=10 * EXACT)
            worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max()).item())
    error = ((y - expected).abs().max() / expected.abs().max()).item()
    proof(f"linear attention, {form}", "numpy, weights of every pair", values=error)
    proof(f"linear attention, {form}", "its own table of pairs", gradients=worst)


@every_form
@given(length=st.integers(1, 40), cut=st.integers(1, 39), chunk=st.sampled_from((1, 4, 8, 64)), packed=st.booleans())
@settings(max_examples=20)
def test_any_length_in_two_pieces(form: str, length: int, cut: int, chunk: int, packed: bool) -> None:
    chunked, recurrent, _ = FORMS[form]
    given = [x.detach() for x in heads(length, batch=1, seed=length)]
    starts = boundaries(50, 1)[:, :length] if packed else None
    whole, last = recurrent(*given, starts=starts)
    if cut >= length:
        torch.testing.assert_close(chunked(*given, starts=starts, chunk=chunk), (whole, last), rtol=0, atol=EXACT)
        return
    pieces = [[x[:, :, part] for x in given] for part in (slice(cut), slice(cut, None))]
    of_pieces = [None, None] if starts is None else [starts[:, :cut], starts[:, cut:]]
    first, state = chunked(*pieces[0], starts=of_pieces[0], chunk=chunk)
    kept = [x.clone() for x in state]
    rest, after = chunked(*pieces[1], state=state, starts=of_pieces[1], chunk=chunk)
    torch.testing.assert_close(torch.cat([first, rest], 2), whole, rtol=0, atol=EXACT)
    torch.testing.assert_close(after, last, rtol=0, atol=EXACT)
    assert all(torch.equal(x, y) for x, y in zip(state, kept, strict=True))


@every_form
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_by_differences(form: str, packed: bool) -> None:
    starts = torch.tensor([[False, False, True, False, False, True, False]]) if packed else None
    given = heads(7, batch=1, key=3, value=2)
    assert torch.autograd.gradcheck(lambda *x: FORMS[form][0](*x, starts=starts, chunk=4)[0], given)


@every_form
def test_the_backward_pass_keeps_memory_linear_in_the_length(form: str) -> None:
    """What autograd saves, counted: twice the length, about twice the numbers; a table of pairs would be four times."""

    def saved(function: Forward, length: int) -> int:
        numbers = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: numbers.append(x.numel()) or x, lambda x: x):
            function(*heads(length))
        return sum(numbers)

    chunked, _, reference = FORMS[form]
    assert saved(chunked, 1024) < 2.1 * saved(chunked, 512)
    assert saved(reference, 256) > 3.5 * saved(reference, 128)


def test_scaling_is_dot_product_attention_divided_by_the_length() -> None:
    """Shen et al., section 3.2: (q kᵀ / n) v, exactly."""
    q, k, v = (x.detach() for x in heads(20))
    scores = torch.einsum("bhtk,bhsk->bhts", q, k) / 20
    torch.testing.assert_close(efficient_attention(q, k, v, "scaling"), scores @ v, rtol=0, atol=EXACT)


def test_weights_of_the_softmax_form() -> None:
    """Not negative, rows sum to 1, and of a rank no higher than the number of features (with v = 1 they are read)."""
    q, k, _ = (x.detach() for x in heads(20, batch=1))
    weights = efficient_attention(q, k, torch.eye(20, dtype=torch.float64).expand(1, 3, -1, -1))
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 3, 20, dtype=torch.float64), rtol=0, atol=EXACT)
    assert int(torch.linalg.matrix_rank(weights, rtol=1e-10).max()) == 6
    plain = torch.einsum("bhtk,bhsk->bhts", q, k).softmax(-1)
    assert int(torch.linalg.matrix_rank(plain, rtol=1e-10).min()) > 6


def test_separate_is_efficient_attention_of_every_prefix_and_joint_is_not() -> None:
    q, k, v = (x.detach() for x in heads(23))
    y = separate(q, k, v)[0]
    for t in range(23):
        prefix = efficient_attention(q[:, :, : t + 1], k[:, :, : t + 1], v[:, :, : t + 1])[:, :, -1]
        torch.testing.assert_close(y[:, :, t], prefix, rtol=0, atol=EXACT)
    whole = efficient_attention(q, k, v)
    changed = efficient_attention(q, torch.cat([k[:, :, :-1], k[:, :, -1:] + 3], 2), v)
    assert (whole[:, :, 0] - changed[:, :, 0]).abs().max() > 0.05  # it is not causal: the first row feels the last key
    assert (joint(q, k, v)[0][:, :, -1] - whole[:, :, -1]).abs().max() > 0.01


def test_what_a_shift_of_the_keys_changes() -> None:
    """A number for each feature cancels in the separate form alone; one number for all cancels in both."""
    q, k, v = (x.detach() for x in heads(33))
    each = torch.linspace(-2, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(separate(q, k + each, v)[0], separate(q, k, v)[0], rtol=0, atol=EXACT)
    assert (joint(q, k + each, v)[0] - joint(q, k, v)[0]).abs().max() > 0.05
    for form in (separate, joint):
        torch.testing.assert_close(form(q, k + 700.0, v)[0], form(q, k, v)[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", [separate, joint])
@pytest.mark.parametrize("scale", [1, 30, 300, 3000])
def test_keys_of_any_size_are_stable_in_float32(form: Forward, scale: int) -> None:
    """exp(88) is where float32 ends. The tolerance is the rounding of the keys themselves (2⁻²³ of the largest)."""
    q, k, v = (x.detach() for x in heads(96))
    expected = form(q, (scale * k).float().double(), v, chunk=1)[0]
    single = [x.float() for x in (q, scale * k, v)]
    single = [x.requires_grad_() for x in single]
    y, state = form(*single)
    largest = float(single[1].detach().abs().max())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=4e-6 + 2 * largest * 2**-23)
    y.sum().backward()
    assert all(bool(x.grad.isfinite().all()) for x in single)
    assert all(bool(x.isfinite().all()) for x in state)


@pytest.mark.parametrize("form", [separate, joint])
def test_constant_values_come_back_and_one_token_reads_itself(form: Forward) -> None:
    q, k, v = (x.detach() for x in heads(40))
    constant = v[:, :, :1].expand_as(v)
    torch.testing.assert_close(form(q, k, constant)[0], constant, rtol=0, atol=EXACT)
    torch.testing.assert_close(form(q, k, v)[0][:, :, 0], v[:, :, 0], rtol=0, atol=EXACT)
    torch.testing.assert_close(linear_attention(q, k, v)[0][:, :, :1], (q * k).sum(-1, True)[:, :, :1] * v[:, :, :1])


@every_form
def test_low_precision_is_summed_in_float32(form: str) -> None:
    chunked, _, reference = FORMS[form]
    given = [x.detach().bfloat16() for x in heads(300)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = chunked(*given)
    assert y.dtype == torch.bfloat16
    assert all(x.dtype == torch.float32 for x in ([state] if form == "sums" else state))
    expected = reference(*(x.double() for x in given))
    assert (y.double() - expected).abs().max() < 2**-8 * expected.abs().max()


def test_a_chunk_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two, got 7"):
        separate(*heads(9), chunk=7)
