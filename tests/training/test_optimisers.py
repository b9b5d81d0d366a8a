"""Optimisers against code that is not theirs: transformers' Adafactor, loops in numpy."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import Adafactor as TheirAdafactor

from tests.proof import Proof
from windtunnel.errors import InputError
from windtunnel.init import roles
from windtunnel.training.optimisers import OPTIMISERS, build_optimisers
from windtunnel.training.optimisers.adafactor import Adafactor
from windtunnel.training.optimisers.state import flatten_state, restore_state

EXACT = 1e-14
Array = np.ndarray[Any, np.dtype[np.float64]]


def _weights(scale: float = 1.0) -> list[nn.Parameter]:
    """A matrix, a vector of zeros (below the RMS floor) and a stack, in float64."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((5, 7), (9,), (2, 3, 4))
    tensors = [torch.randn(shape, generator=draw, dtype=torch.float64) * scale for shape in shapes]
    return [nn.Parameter(tensor * (tensor.ndim > 1)) for tensor in tensors]


def _gradients(step: int, weights: list[nn.Parameter]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(step + 1)
    return [torch.randn(weight.shape, generator=draw, dtype=torch.float64) * 10 ** (step % 3 - 2) for weight in weights]


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def test_adafactor_equals_transformers_on_flat_copies(proof: Proof) -> None:
    """Theirs factors whatever has two dimensions, hence the flat copies; PaLM's decay is taken by hand."""
    ours, theirs = _weights(), [nn.Parameter(weight.detach().flatten()) for weight in _weights()]
    optimiser = Adafactor(ours, lr=0.01, momentum=0.9, weight_decay=1.0)
    options = {"eps": (1e-30, 1e-3), "clip_threshold": 1.0, "decay_rate": -0.8, "beta1": 0.9}
    oracle = TheirAdafactor(theirs, lr=0.01, relative_step=False, scale_parameter=True, **options)
    worst = 0.0
    for step in range(60):
        rate = 0.01 / max(1, step / 20) ** 0.5
        for group in (*optimiser.param_groups, *oracle.param_groups):
            group["lr"] = rate
        before = [weight.detach().clone() for weight in theirs]
        for weight, twin, gradient in zip(ours, theirs, _gradients(step, ours), strict=True):
            weight.grad, twin.grad = gradient, gradient.flatten().clone()
        optimiser.step()
        oracle.step()
        for weight, twin, old in zip(ours, theirs, before, strict=True):
            twin.data -= rate**2 * old
            worst = max(worst, float((weight.flatten() - twin).detach().abs().max()))
    assert worst < EXACT
    proof("Adafactor as PaLM has it", "transformers Adafactor", weights_after_60_steps=worst)


def test_adafactor_first_step_is_a_sign_of_known_size() -> None:
    """0.1 lr max(1e-3, RMS(w)) in each place, and lr² of decay (specified for k = 1, where b2 = 0)."""
    weights = _weights(scale=3.0)
    before = [weight.detach().clone() for weight in weights]
    for weight, gradient in zip(weights, _gradients(0, weights), strict=True):
        weight.grad = gradient
    Adafactor(weights, lr=0.01, momentum=0.9, weight_decay=1.0).step()
    for weight, old in zip(weights, before, strict=True):
        assert weight.grad is not None
        size = 0.1 * 0.01 * max(1e-3, float(old.square().mean().sqrt()))
        expected = old * (1 - 1e-4) - size * weight.grad.sign()
        torch.testing.assert_close(weight.detach(), expected, atol=1e-15, rtol=1e-13)


def _adam(w: Array, g: Array, state: dict[str, Any], decay: float, coupled: bool) -> Array:
    g = g + decay * w * coupled
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.95 * state.get("v", 0) + 0.05 * g * g
    state["t"] = t = state.get("t", 0) + 1
    step = state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.95**t)) + 1e-8)
    return w - 0.01 * step - 0.01 * decay * w * (not coupled)


def _sgd(w: Array, g: Array, state: dict[str, Any], decay: float) -> Array:
    g = g + decay * w
    state["m"] = 0.9 * state["m"] + g if "m" in state else g
    return w - 0.01 * state["m"]


def _muon(w: Array, g: Array, state: dict[str, Any], decay: float) -> Array:
    """The iteration in float64; torch runs it in bfloat16."""
    state["m"] = 0.95 * state.get("m", 0) + 0.05 * g
    u = 0.05 * g + 0.95 * state["m"]
    u = u.T if (tall := u.shape[0] > u.shape[1]) else u
    u = u / np.linalg.norm(u)
    for _ in range(5):
        square = u @ u.T
        u = 3.4445 * u + (-4.7750 * square + 2.0315 * square @ square) @ u
    return w * (1 - 0.01 * decay) - 0.01 * 0.2 * max(w.shape) ** 0.5 * (u.T if tall else u)


Loop = Callable[[Array, Array, dict[str, Any], float], Array]
LOOPS: dict[str, Loop] = {
    "adamw": partial(_adam, coupled=False),
    "adam": partial(_adam, coupled=True),
    "sgd": _sgd,
    "muon": _muon,
}


@pytest.mark.parametrize(("name", "most"), [("adamw", 1e-12), ("adam", 1e-12), ("sgd", 1e-12), ("muon", 0.02)])
def test_steps_equal_numpy(name: str, most: float, make_spec: Any, make_settings: Any, proof: Proof) -> None:
    """Every parameter of a model by the loop of that name, gains not decayed; under Muon all but matrices by AdamW."""
    model = make_spec(layers=1).build().initialize(0).double()
    optimisers = build_optimisers(model, make_settings(optimiser=name, learning_rate=0.01))
    table = roles(model)
    start = {key: weight.detach().numpy().copy() for key, weight in model.named_parameters()}
    copies, states = dict(start), {key: dict[str, Any]() for key in start}
    for step in range(12):
        gradients = _gradients(step, list(model.parameters()))
        for (key, weight), gradient in zip(model.named_parameters(), gradients, strict=True):
            weight.grad = gradient
            matrix = table[key].kind in ("reads", "writes", "inner")
            loop = LOOPS["adamw" if name == "muon" and not matrix else name]
            copies[key] = loop(copies[key], gradient.numpy(), states[key], 0.1 * (weight.ndim > 1))
        for optimiser in optimisers:
            optimiser.step()
    apart = {
        key: float(np.linalg.norm(weight.detach().numpy() - copies[key]) / np.linalg.norm(copies[key] - start[key]))
        for key, weight in model.named_parameters()
    }
    assert max(apart.values()) < most, apart
    proof(f"optimiser {name}", "numpy loop", distance_moved_in_12_steps=max(apart.values()))


def test_muon_takes_matrices_and_leaves_the_rest(make_spec: Any, make_settings: Any) -> None:
    model = make_spec("gpt3").build().initialize(0)
    muon, adamw = build_optimisers(model, make_settings(optimiser="muon"))
    names = {weight: name for name, weight in model.named_parameters()}
    theirs = {names[weight] for group in muon.param_groups for weight in group["params"]}
    rest = {names[weight] for group in adamw.param_groups for weight in group["params"]}
    assert theirs == {name for name in names.values() if name.startswith("blocks.") and name.endswith(".weight")} - rest
    assert not theirs & rest
    assert theirs | rest == set(names.values())
    assert "embedding.weight" in rest
    assert "blocks.0.mixer.q.weight" in theirs


@pytest.mark.parametrize("name", OPTIMISERS)
def test_state_survives_bit_for_bit(name: str, make_spec: Any, make_settings: Any) -> None:
    model = make_spec().build().initialize(0)
    settings = make_settings(optimiser=name)
    optimisers = build_optimisers(model, settings)

    def advance(module: nn.Module, parts: Any, step: int) -> None:
        for weight, gradient in zip(module.parameters(), _gradients(step, list(module.parameters())), strict=True):
            weight.grad = gradient.float()
        for part in parts:
            part.step()

    for step in range(3):
        advance(model, optimisers, step)
    twin = copy.deepcopy(model)
    restored = build_optimisers(twin, settings)
    restore_state(
        restored, named(twin), {key: value.clone() for key, value in flatten_state(optimisers, named(model)).items()}
    )
    for step in range(3, 6):
        advance(model, optimisers, step)
        advance(twin, restored, step)
    for key, weight in model.named_parameters():
        assert torch.equal(weight, twin.get_parameter(key)), key
    left, right = flatten_state(optimisers, named(model)), flatten_state(restored, named(twin))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_unknown_state_is_refused(make_spec: Any, make_settings: Any) -> None:
    model = make_spec().build().initialize(0)
    optimisers = build_optimisers(model, make_settings(optimiser="muon"))
    with pytest.raises(InputError, match=r"nowhere.*do not match"):
        restore_state(optimisers, named(model), {"nowhere/step": torch.zeros(())})
