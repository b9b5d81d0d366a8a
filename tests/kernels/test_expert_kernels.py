"""Grouped products and dispatch: the functions by hand against the equations, and the equations against loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.proof import Proof
from windtunnel.kernels import (
    combine,
    combine_reference,
    dispatch,
    fused_grouped_linear,
    gather,
    gather_reference,
    grouped_linear,
    grouped_linear_reference,
)

DOUBLE = 1e-12
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def problem(sizes: list[int], inputs: int, outputs: int, dtype: torch.dtype = torch.float64):
    draw = torch.Generator().manual_seed(sum(sizes) + inputs)
    x = torch.randn(sum(sizes), inputs, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(len(sizes), outputs, inputs, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    return x, weight, torch.tensor(sizes).cumsum(0).to(torch.int32)


def slopes(y: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    seed = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return torch.autograd.grad(y, inputs, seed, retain_graph=True)


@given(SIZES, st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=25)
def test_grouped_product_equals_a_loop_over_rows(sizes: list[int], inputs: int, outputs: int) -> None:
    x, weight, ends = problem(sizes, inputs, outputs)
    group_of = [group for group, size in enumerate(sizes) for _ in range(size)]
    rows = [weight[group] @ row for group, row in zip(group_of, x, strict=True)]
    expected = torch.stack(rows) if rows else x.new_zeros(0, outputs)
    for product in (grouped_linear, grouped_linear_reference):
        y = product(x, weight, ends)
        torch.testing.assert_close(y, expected, rtol=0, atol=DOUBLE)
        if rows:
            for ours, theirs in zip(slopes(y, x, weight), slopes(expected, x, weight), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=DOUBLE)


def test_gradients_equal_finite_differences() -> None:
    x, weight, ends = problem([3, 0, 2], 3, 2)
    assert torch.autograd.gradcheck(lambda x, weight: grouped_linear(x, weight, ends), (x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [[3, 0, 4, 0], [0, 0, 1], [8]], ids=str)
def test_torchs_grouped_product_is_the_same(sizes: list[int], dtype: torch.dtype) -> None:
    """Empty groups, and the gradient of a plain sum, whose strides are zero."""
    x, weight, ends = problem(sizes, 8, 16, dtype)
    fused, loop = fused_grouped_linear(x, weight, ends), grouped_linear_reference(x, weight, ends)
    tolerance = {"rtol": 0.0, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-2}
    torch.testing.assert_close(fused, loop, **tolerance)
    ours, theirs = torch.autograd.grad(fused.sum(), (x, weight)), torch.autograd.grad(loop.sum(), (x, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.gpu
def test_torchs_grouped_product_on_an_accelerator() -> None:
    x, weight, ends = (each.cuda() for each in problem([5, 0, 11], 64, 32, torch.bfloat16))
    torch.testing.assert_close(
        grouped_linear(x, weight, ends), grouped_linear_reference(x, weight, ends), rtol=2e-2, atol=5e-2
    )


def test_autocast_multiplies_in_its_dtype() -> None:
    x, weight, ends = problem([3, 2], 8, 8, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = grouped_linear(x, weight, ends)
    assert y.dtype == torch.bfloat16
    assert slopes(y, weight)[0].dtype == torch.float32


@given(st.integers(1, 12), st.integers(1, 5), st.data())
@settings(max_examples=40)
def test_there_and_back_equals_a_loop_over_choices(n: int, experts: int, data: st.DataObject) -> None:
    choices = data.draw(st.integers(1, 4))
    drops = data.draw(st.booleans())
    entries = st.integers(-1 if drops else 0, experts - 1)
    chosen = torch.tensor(data.draw(st.lists(entries, min_size=n * choices, max_size=n * choices))).view(n, choices)
    draw = torch.Generator().manual_seed(n)
    x = torch.randn(n, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(n, choices, generator=draw, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(experts, 3, generator=draw, dtype=torch.float64)
    expected = 0 * x + 0 * gates.sum()
    for row, choice in (chosen >= 0).nonzero().tolist():
        add = gates[row, choice] * x[row] * factors[chosen[row, choice]]
        expected = expected.index_add(0, torch.tensor([row]), add[None])
    plan = dispatch(chosen, experts, drops)
    of_place = chosen.flatten()[plan.pairs]
    assert bool((of_place.diff() >= 0).all())
    assert plan.ends.tolist() == [int(((chosen >= 0) & (chosen <= expert)).sum()) for expert in range(experts)]
    for there, back in ((gather, combine), (gather_reference, combine_reference)):
        y = back(there(x, plan) * factors[of_place], gates, plan)
        torch.testing.assert_close(y, expected, rtol=0, atol=DOUBLE)
        for ours, theirs in zip(slopes(y, x, gates), slopes(expected, x, gates), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=DOUBLE)


def test_within_an_expert_tokens_keep_their_order() -> None:
    plan = dispatch(torch.tensor([[1, 0], [0, -1], [1, 2], [-1, 1]]), 3, drops=True)
    assert plan.rows.tolist() == [0, 1, 0, 2, 3, 2]
    assert plan.ends.tolist() == [2, 5, 6]
    assert plan.ends.dtype == torch.int32


def test_part_by_part_equals_finite_differences() -> None:
    chosen = torch.tensor([[1, 0], [0, -1], [2, 1]])
    plan = dispatch(chosen, 3, drops=True)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, gates: combine(gather(x, plan).tanh(), gates, plan), (x, gates))


def test_proof_of_the_pair(proof: Proof) -> None:
    """All experts on all tokens, masked by the gates, against dispatch, grouped products and combination."""
    n, experts, width = 37, 5, 6
    x = torch.randn(n, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(experts, width, width, dtype=torch.float64, requires_grad=True)
    gates, chosen = torch.rand(n, experts, dtype=torch.float64).topk(2)
    gates.requires_grad_()
    plan = dispatch(chosen, experts)
    y = combine(grouped_linear(gather(x, plan), weight, plan.ends), gates, plan)
    masked = torch.zeros(n, experts, dtype=torch.float64).scatter(1, chosen, gates)
    expected = torch.einsum("ne,eoi,ni->no", masked, weight, x)
    pairs = zip((y, *slopes(y, x, weight, gates)), (expected, *slopes(expected, x, weight, gates)), strict=True)
    values, *gradients = ((ours - theirs).abs().max().item() for ours, theirs in pairs)
    assert max(values, *gradients) < DOUBLE
    proof("experts, dispatched", "all experts on all tokens, masked", values=values, gradients=max(gradients))
