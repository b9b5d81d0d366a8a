"""Attention over tiles against the equation with the mask that they add up to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from windtunnel.kernels import tiled
from windtunnel.kernels.tiled import Tiles, multiplied_pairs, tiled_attention, tiled_attention_reference

SCALE = 0.37
EXACT = {"rtol": 1e-11, "atol": 1e-12}


def tensors(h: int, g: int, t: int, s: int, k: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, h, t, k), (2, g, s, k), (2, g, s, v))
    q, keys, values = (torch.randn(x, dtype=torch.float64, generator=draw).requires_grad_() for x in shapes)
    return q, keys, values


def some_tiles(t: int, s: int, seed: int) -> list[Tiles]:
    """Random disjoint tiles: the keys are dealt out to three entries, each of which deals out the queries again."""
    draw = torch.Generator().manual_seed(seed)
    found, owner = [], torch.randint(0, 3, (s,), generator=draw)
    for entry in range(3):
        keys = (owner == entry).nonzero().flatten()
        order, size = torch.randperm(t, generator=draw), int(torch.randint(1, 5, (), generator=draw))
        filled = torch.cat([order, order.new_full((-t % size,), -1)]).view(-1, size)
        table = torch.cat([keys, keys.new_full((2,), -1)]).expand(len(filled), -1)
        seen = torch.rand(len(filled), size, len(keys) + 2, generator=draw) < 0.4
        found.append(Tiles(filled, table, seen & (filled >= 0).unsqueeze(2) & (table >= 0).unsqueeze(1)))
    return found


@given(
    groups=st.integers(1, 2),
    repeats=st.integers(1, 3),
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 99),
    held=st.sampled_from([1, 200, 2**21]),
)
@settings(max_examples=30)
def test_values_and_gradients(
    groups: int, repeats: int, sizes: tuple[int, int, int, int], seed: int, held: int
) -> None:
    """Some queries see nothing, some keys are seen by nobody; whatever is held at a time, the result is the same."""
    inputs, tiles = tensors(groups * repeats, groups, *sizes), some_tiles(*sizes[:2], seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "_SCORES", held)
        ours = tiled_attention(*inputs, SCALE, tiles)
        weights = torch.randn(ours.shape, dtype=ours.dtype)
        gradients = torch.autograd.grad(ours, inputs, weights)
    expected = tiled_attention_reference(*inputs, SCALE, tiles)
    torch.testing.assert_close(ours, expected, **EXACT)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, weights), **EXACT)


def test_gradcheck() -> None:
    q, k, v = (x[:1] for x in tensors(2, 1, 5, 6, 2, 3))
    tiles = some_tiles(5, 6, 3)
    assert torch.autograd.gradcheck(lambda q, k, v: tiled_attention(q, k, v, SCALE, tiles), (q, k, v))


def test_large_scores_do_not_overflow() -> None:
    q, k, v = tensors(2, 2, 9, 9, 4, 4)
    tiles = some_tiles(9, 9, 1)
    shifted = torch.cat([k, torch.full_like(k[..., :1], 1e4)], -1), torch.cat([q, torch.ones_like(q[..., :1])], -1)
    torch.testing.assert_close(
        tiled_attention(shifted[1], shifted[0], v, 1.0, tiles), tiled_attention(q, k, v, 1.0, tiles), rtol=0, atol=1e-9
    )


def test_a_pair_in_two_tiles_is_refused_by_the_reference() -> None:
    inputs, (first, *others) = tensors(1, 1, 6, 6, 2, 2), some_tiles(6, 6, 0)
    with pytest.raises(ValueError, match="more than one tile"):
        tiled_attention_reference(*inputs, SCALE, [first, first, *others])


def test_what_is_multiplied_is_the_area_of_the_tiles() -> None:
    tiles = some_tiles(7, 5, 2)
    assert multiplied_pairs(tiles) == sum(q.shape[0] * q.shape[1] * k.shape[1] for q, k, _ in tiles)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in tensors(4, 2, 20, 20, 4, 4))
    tiles = some_tiles(20, 20, 4)
    y = tiled_attention(q, k, v, SCALE, tiles)
    y.sum().backward()
    assert q.grad is not None
    assert y.dtype == q.grad.dtype == dtype
    expected = tiled_attention_reference(q.double(), k.double(), v.double(), SCALE, tiles)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
