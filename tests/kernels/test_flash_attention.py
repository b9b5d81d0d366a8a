"""FlashAttention 1 and 2 against torch's SDPA, and their accounts against what they were seen to move and compute."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.proof import Proof
from windtunnel.kernels import attention_reference, flash_costs
from windtunnel.kernels.flash import Memory, Tiling, Version, flash_attention, forward_2, published_tiles

SCALE = 0.37
EXACT = {"rtol": 1e-10, "atol": 1e-12}
VERSIONS = pytest.mark.parametrize("version", [1, 2])


def tensors(h: int, g: int, t: int, s: int, d: int, e: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, h, t, d), (2, g, s, d), (2, g, s, e))
    q, k, v = (torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_() for shape in shapes)
    return q, k, v


@VERSIONS
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 5, 64, 100, 257])
def test_against_torchs_sdpa(length: int, causal: bool, version: Version, proof: Proof) -> None:
    inputs = tensors(4, 2, length, length, 8, 8)
    ours = flash_attention(*inputs, SCALE, causal, version, tile=(32, 48))
    theirs = F.scaled_dot_product_attention(*inputs, is_causal=causal, scale=SCALE, enable_gqa=True)
    values = (ours - theirs).abs().max().item()
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9))
    found, expected = (torch.autograd.grad(y, inputs, weights) for y in (ours, theirs))
    slopes = max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))
    assert max(values, slopes) < 1e-12
    proof(f"FlashAttention {version}, to be read", "torch SDPA", values=values, gradients=slopes)


@VERSIONS
@given(
    queries=st.integers(1, 30),
    keys=st.integers(1, 30),
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    tile=st.tuples(st.integers(4, 17), st.integers(4, 17)),
    causal=st.booleans(),
)
@settings(max_examples=20)
def test_any_tiles_and_any_alignment(
    version: Version, queries: int, keys: int, widths: tuple[int, int], tile: tuple[int, int], causal: bool
) -> None:
    """Where queries are more than keys, the first of them see nothing, and give zeros."""
    inputs = tensors(2, 1, queries, keys, *widths)
    ours = flash_attention(*inputs, SCALE, causal, version, tile)
    expected = attention_reference(*inputs, SCALE, None, causal)
    torch.testing.assert_close(ours, expected, **EXACT)
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(expected, inputs, weights), **EXACT
    )


@pytest.mark.parametrize("causal", [False, True])
def test_what_is_kept_is_torchs_log_sum_exp(causal: bool) -> None:
    q, k, v = (x.detach() for x in tensors(2, 2, 70, 70, 8, 8))
    y, total = forward_2(q, k, v, SCALE, Tiling(70, 70, 16, 24, causal), Memory())
    theirs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=SCALE)
    torch.testing.assert_close(y, theirs[0], **EXACT)
    torch.testing.assert_close(total, theirs[1], **EXACT)


@VERSIONS
def test_gradcheck(version: Version) -> None:
    inputs = tuple(x[:1] for x in tensors(2, 1, 5, 7, 2, 3))
    assert torch.autograd.gradcheck(lambda q, k, v: flash_attention(q, k, v, SCALE, True, version, (2, 3)), inputs)


@VERSIONS
def test_large_scores_do_not_overflow(version: Version) -> None:
    q, k, v = tensors(1, 1, 9, 9, 4, 4)
    far_q, far_k = torch.cat([q, torch.ones_like(q[..., :1])], -1), torch.cat([k, torch.full_like(k[..., :1], 1e4)], -1)
    shifted = flash_attention(far_q, far_k, v, 1.0, True, version, (4, 2))
    torch.testing.assert_close(shifted, flash_attention(q, k, v, 1.0, True, version, (4, 2)), rtol=0, atol=1e-9)


@VERSIONS
@given(
    queries=st.integers(1, 40),
    more=st.integers(-10, 30),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    tile=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    causal=st.booleans(),
)
@settings(max_examples=20)
def test_accounts_are_what_was_moved_and_computed(
    version: Version, queries: int, more: int, widths: tuple[int, int], tile: tuple[int, int], causal: bool
) -> None:
    keys = max(1, queries + more)
    q, k, v = (x[:1] for x in tensors(1, 1, queries, keys, *widths))
    tiling, memory = Tiling(queries, keys, *tile, causal), Memory()
    with FlopCounterMode(display=False) as counter:
        y = flash_attention(q, k, v, SCALE, causal, version, tile, memory)
    moved = flash_costs.forward(tiling, version, *widths)
    assert (memory.loaded, memory.stored) == (moved.loaded, moved.stored)
    assert counter.get_total_flops() == flash_costs.forward_operations(tiling, *widths)
    memory.loaded = memory.stored = 0
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    moved = flash_costs.backward(tiling, version, *widths)
    assert (memory.loaded, memory.stored) == (moved.loaded, moved.stored)
    assert counter.get_total_flops() == flash_costs.backward_operations(tiling, *widths)


def test_published_figures() -> None:
    """N = 4,096, d = 64 on a chip of 25,600 elements; the backward pass has 2.5 times the forward pass's products."""
    tile = published_tiles(64, 25_600)
    assert tile == (64, 100)
    tiling = Tiling(4096, 4096, *tile, causal=False)
    plain = flash_costs.plain_forward(4096, 4096, 64, 64).total
    first = flash_costs.forward(tiling, 1, 64, 64).total
    assert plain == pytest.approx(68.2e6, rel=1e-3)
    assert first == pytest.approx(33.4e6, rel=2e-3)
    assert flash_costs.forward(tiling, 2, 64, 64).stored < 0.03 * flash_costs.forward(tiling, 1, 64, 64).stored
    products = flash_costs.forward_operations(tiling, 64, 64)
    assert products == 4 * 4096**2 * 64
    assert flash_costs.backward_operations(tiling, 64, 64) == 2.5 * products
    causal = tiling._replace(causal=True)
    assert flash_costs.forward_operations(causal, 64, 64) == pytest.approx(products / 2, rel=0.04)


@pytest.mark.parametrize("causal", [False, True])
def test_traffic_falls_with_the_chip(causal: bool) -> None:
    """Theta(N² d² / M): four times the chip, about a quarter of what depends on it."""
    small, large = (Tiling(8192, 8192, *published_tiles(64, chip), causal) for chip in (2**15, 2**17))
    once = 2 * 8192 * 64
    before, after = (flash_costs.forward(each, 1, 64, 64).total - once for each in (small, large))
    assert before / after == pytest.approx(4, rel=0.05)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.numel())
        return made


@VERSIONS
def test_no_tensor_grows_with_the_square_of_the_length(version: Version) -> None:
    inputs = [x[:1].detach().requires_grad_() for x in tensors(1, 1, 1024, 1024, 4, 4)]
    with Largest() as seen:
        flash_attention(*inputs, SCALE, True, version).sum().backward()
    assert seen.entries <= max(1024 * 4, 64 * 64)
