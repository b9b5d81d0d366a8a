"""Products of few rows by compiled code: the same sums, whatever the sizes."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.proof import Proof
from windtunnel.kernels import few_rows, few_rows_reference
from windtunnel.kernels.few_rows import product

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
CLOSE = 2e-6  # float32, over the largest sum of sizes |x| |W|


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 40), st.integers(1, 2))
def test_products_of_any_size(rows: int, inputs: int, outputs: int, threads: int) -> None:
    generator = torch.Generator().manual_seed(rows + 41 * inputs + 2911 * outputs)
    x, weight = (torch.randn(count, inputs, generator=generator) for count in (rows, outputs))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = few_rows(x, weight)
    finally:
        torch.set_num_threads(before)
    assert off(found, x, weight) < CLOSE


def test_a_layer_sized_product(proof: Proof) -> None:
    x, weight = torch.randn(16, 688), torch.randn(257, 688)
    error = off(few_rows(x, weight), x, weight)
    assert error < CLOSE
    proof("products of few rows, compiled", "torch in float64", values=error)


def test_what_is_no_number_stays_none() -> None:
    x, weight = torch.ones(3, 20), torch.ones(4, 20)
    x[0, 3], x[1, 19] = float("nan"), float("inf")
    torch.testing.assert_close(few_rows(x, weight), few_rows_reference(x, weight), equal_nan=True)


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected float32 on a CPU, got torch\.float64"):
        few_rows(torch.ones(1, 8, dtype=torch.float64), torch.ones(1, 8, dtype=torch.float64))


def test_the_compiler_sees_one_operator() -> None:
    torch.library.opcheck(product, (torch.randn(2, 3, 5), torch.randn(4, 5)))


def off(found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> float:
    """The largest error, over the sum of the sizes of what was summed."""
    exact, sizes = x.double() @ weight.double().T, x.double().abs() @ weight.double().abs().T
    return float(((found - exact).abs() / sizes.clamp(min=1e-30)).max())
