"""The step on the sphere: the function by hand against the equation, and the equation against geometry."""

import pytest
import torch
from torch.nn.functional import normalize

from windtunnel.kernels.sphere import sphere_step, sphere_step_reference


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, branch = normalize(torch.randn(*shape, dtype=dtype), dim=-1), 3 * torch.randn(*shape, dtype=dtype)
    rate = torch.rand(shape[-1], dtype=dtype)
    return tuple(each.requires_grad_() for each in (x, branch, rate))  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(2, 3, 8), (1, 1, 5), (4, 7, 33), (6, 2)])
def test_values_and_gradients_equal_the_equations(shape):
    ours, theirs = inputs(*shape), None
    theirs = tuple(each.detach().clone().requires_grad_() for each in ours)
    weights = torch.randn(*shape, dtype=torch.float64)
    left, right = sphere_step(*ours), sphere_step_reference(*theirs)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-14)
    (left * weights).sum().backward()
    (right * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-13)


def test_gradients_equal_finite_differences():
    assert torch.autograd.gradcheck(sphere_step, inputs(2, 3, 4))


def test_a_rate_of_zero_stays_and_a_rate_of_one_arrives():
    x, branch, rate = inputs(5, 16)
    torch.testing.assert_close(sphere_step(x, branch, torch.zeros_like(rate)), x)
    torch.testing.assert_close(sphere_step(x, branch, torch.ones_like(rate)), normalize(branch, dim=-1))


def test_the_step_of_orthogonal_vectors_has_the_angle_of_the_chord():
    """At rate 0.05 the angle is atan(0.05 / 0.95), not 0.05 of a right angle: a chord, not an arc."""
    x, branch = torch.eye(2, dtype=torch.float64)[:1], torch.eye(2, dtype=torch.float64)[1:]
    moved = sphere_step(x, branch, torch.full((2,), 0.05, dtype=torch.float64))
    angle = torch.atan2(moved[0, 1], moved[0, 0])
    torch.testing.assert_close(angle, torch.tensor(0.0526, dtype=torch.float64), rtol=0, atol=1e-4)


def test_low_precision_keeps_the_norm_in_float32():
    x, branch, rate = (each.detach().bfloat16() for each in inputs(64, 128))
    moved = sphere_step(x, branch, rate)
    assert moved.dtype == torch.bfloat16
    wide = sphere_step_reference(x.double(), branch.double(), rate.double())
    torch.testing.assert_close(moved.double(), wide, rtol=1e-2, atol=1e-3)
