"""Rotations: against the equation written with matrices, the inverse, and odd strides."""

import math

import pytest
import torch
from torch import Tensor

from windtunnel.kernels.rotary import Layout, rotate, rotate_reference, turn, widened

LAYOUTS: list[Layout] = ["half", "interleaved"]


def angles(*shape: int) -> tuple[Tensor, Tensor]:
    theta = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2 * math.pi
    return theta.cos(), theta.sin()


def heads(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def by_matrices(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
    """One 2x2 matrix for each pair and position, by index."""
    y, count = x.detach().clone(), cos.shape[-1]
    for i in range(count):
        u, w = (i, i + count) if layout == "half" else (2 * i, 2 * i + 1)
        c, s = cos[..., i], sin[..., i]
        y[..., u], y[..., w] = c * x[..., u] - s * x[..., w], s * x[..., u] + c * x[..., w]
    return y.detach()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("width", "rotated"), [(8, 8), (9, 6), (10, 2), (2, 2)])
@pytest.mark.parametrize("per_row", [False, True])
def test_rotation(layout: Layout, width: int, rotated: int, per_row: bool) -> None:
    x = heads(2, 3, 5, width)
    cos, sin = angles(2, 1, 5, rotated // 2) if per_row else angles(5, rotated // 2)
    ours, reference = rotate(x, cos, sin, layout), rotate_reference(x, cos, sin, layout)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(ours.detach(), by_matrices(x, cos, sin, layout))
    weights = torch.randn_like(ours)
    torch.testing.assert_close(torch.autograd.grad(ours, x, weights), torch.autograd.grad(reference, x, weights))
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin, layout), (x,))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_views(layout: Layout) -> None:
    """Heads split from a projection, with an odd offset and odd row strides."""
    buffer = heads(2, 5, 3 * 8 + 1)
    x = buffer[..., 1:].view(2, 5, 3, 8).transpose(1, 2)
    cos, sin = angles(5, 4)
    ours, reference = rotate(x, cos, sin, layout), rotate_reference(x, cos, sin, layout)
    torch.testing.assert_close(ours, reference)
    weights = torch.randn(2, 5, 3, 8, dtype=torch.float64).transpose(1, 2)
    torch.testing.assert_close(
        torch.autograd.grad(ours, buffer, weights), torch.autograd.grad(reference, buffer, weights)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_rotates_in_float32(layout: Layout) -> None:
    x = heads(1, 2, 5, 8).detach().bfloat16()
    cos, sin = (table.float() for table in angles(5, 4))
    ours = rotate(x, cos, sin, layout)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, rotate(x.float(), cos, sin, layout).bfloat16())


def test_refusals() -> None:
    cos, sin = angles(5, 4)
    with pytest.raises(ValueError, match="head size 6"):
        rotate(heads(1, 1, 5, 6), cos, sin)
    with pytest.raises(ValueError, match="interleaved"):
        rotate(heads(1, 1, 5, 8), cos, sin, "pairs")  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("width", "rotated"), [(8, 8), (9, 6), (10, 2)])
@pytest.mark.parametrize("per_row", [False, True])
def test_decoding_turns_by_tables_made_once(layout: Layout, width: int, rotated: int, per_row: bool) -> None:
    """Heads as views of a product, as attention has them."""
    cos, sin = angles(2, 1, 5, rotated // 2) if per_row else angles(5, rotated // 2)
    with torch.inference_mode():
        x = heads(2, 5, 3 * width).detach().view(2, 5, 3, width).transpose(1, 2)
        before = x.clone()
        torch.testing.assert_close(turn(x, widened(cos, sin, layout)), by_matrices(x, cos, sin, layout))
        assert torch.equal(x, before)
