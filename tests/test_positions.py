"""Rotary positions by their definition."""

import pytest
import torch
from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.layer import Context
from windtunnel.positions import Learned, Rope

EXACT = 1e-12


def rotated(rope: Rope, x: Tensor, first: int = 0) -> Tensor:
    """x [b h t k] at positions first, first + 1, ..."""
    (found,) = rope.apply(Context(torch.arange(first, first + x.shape[2])), x)
    return found


def heads(width: int = 12, length: int = 9) -> Tensor:
    return torch.randn(2, 3, length, width, dtype=torch.float64)


ROPES = [Rope(), Rope(layout="interleaved"), Rope(width=4), Rope(theta=500_000.0, layout="interleaved", width=6)]


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_pairs_turn_by_position_times_frequency(rope: Rope) -> None:
    """As complex numbers: (u + i w) exp(i m theta^(-2 j / r))."""
    x, r = heads(), rope.width or 12
    found = rotated(rope, x, first=3)
    for pair in range(r // 2):
        u, w = (pair, pair + r // 2) if rope.layout == "half" else (2 * pair, 2 * pair + 1)
        angle = torch.arange(3, 12, dtype=torch.float64) * rope.theta ** (-2 * pair / r)
        turned = torch.complex(x[..., u], x[..., w]) * torch.polar(torch.ones_like(angle), angle)
        torch.testing.assert_close(found[..., u], turned.real, rtol=0, atol=EXACT)
        torch.testing.assert_close(found[..., w], turned.imag, rtol=0, atol=EXACT)
    assert torch.equal(found[..., r:], x[..., r:])


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_scores_depend_on_distance_alone(rope: Rope) -> None:
    q, k = heads(), heads()
    near = rotated(rope, q) @ rotated(rope, k).transpose(-1, -2)
    far = rotated(rope, q, 100) @ rotated(rope, k, 100).transpose(-1, -2)
    torch.testing.assert_close(near, far, rtol=0, atol=EXACT)


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_rotations_keep_norms_and_compose(rope: Rope) -> None:
    x = heads(length=1)
    assert torch.equal(rotated(rope, x, 0), x)
    torch.testing.assert_close(rotated(rope, x, 77).norm(dim=-1), x.norm(dim=-1), rtol=0, atol=EXACT)
    torch.testing.assert_close(rotated(rope, rotated(rope, x, 5), 11), rotated(rope, x, 16), rtol=0, atol=EXACT)


def test_layouts_are_one_function_up_to_a_permutation() -> None:
    x = heads()
    order = [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]
    found = rotated(Rope(), x[..., order])
    other = rotated(Rope(layout="interleaved"), x)[..., order]
    torch.testing.assert_close(found, other, rtol=0, atol=EXACT)


def test_angles_are_exact_at_far_positions_in_low_precision() -> None:
    """Positions above 256 have no exact bfloat16; the angles must be taken before rounding."""
    x = heads(length=4)
    exact = rotated(Rope(), x, 100_001)
    narrow = rotated(Rope(), x.to(torch.bfloat16), 100_001)
    assert narrow.dtype == torch.bfloat16
    assert (narrow.double() - exact).abs().max() < 0.03


def test_one_pass_makes_its_tables_once() -> None:
    context = Context(torch.arange(9))
    Rope().apply(context, heads(), heads())
    Rope().apply(context, heads())
    assert len(context.tables) == 1
    Rope(theta=1.0).apply(context, heads())
    assert len(context.tables) == 2


def test_a_learned_table_is_read_from_where_one_is() -> None:
    layer = Learned(length=7).build(3)
    torch.nn.init.normal_(layer.weight)
    assert torch.equal(layer(Context(torch.arange(2, 6), reach=6), torch.empty(4, 3)), layer.weight[2:6])
    with pytest.raises(InputError, match=r"8 positions.*7"):
        layer(Context(torch.arange(5, 8), reach=8), torch.empty(3, 3))
