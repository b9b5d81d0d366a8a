"""LRU and H3 against the papers' equations in numpy: logits, decoding, and gradients by finite differences."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, tokens_for
from tests.recipes.oracle import CHUNKS, largest
from tests.recipes.state_spaces_in_numpy import h3, logits, lru, mean_loss
from windtunnel.kernels import impulse_response
from windtunnel.layer import Context
from windtunnel.mixers import H3, LRU
from windtunnel.mixers.h3 import H3Layer
from windtunnel.mixers.lru import LRULayer
from windtunnel.model import LanguageModelLayer
from windtunnel.training.optimisers.groups import parameter_groups

EXACT = 1e-11  # float64, relative to the largest entry
STEP, SLOPES = 1e-6, 1e-6  # of the finite differences; relative to the length of the gradient
MIXERS = {"lru": lru, "h3": h3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lru": ("lru", {"width": 12, "layers": 2, "vocab": 19}),
    "lru, long memory": ("lru", {"width": 10, "hidden": 7, "r_min": 0.9, "r_max": 0.999, "layers": 1, "vocab": 19}),
    "h3": ("h3", {"width": 12, "state": 10, "layers": 2, "vocab": 19}),
    "h3, heads": ("h3", {"width": 12, "heads": 4, "state": 6, "hidden": 20, "layers": 1, "vocab": 19}),
}


def built(case: str) -> tuple[str, LanguageModelLayer]:
    recipe, settings = CASES[case]
    return recipe, model_of(recipe, dtype=torch.float64, **settings)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_and_decoding_are_those_of_the_equations(case: str, proof: Proof) -> None:
    recipe, model = built(case)
    tokens = tokens_for(model.spec, length=sum(CHUNKS))
    weights = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    layers = len(model.spec.blocks)
    expected = torch.from_numpy(np.stack([logits(row.numpy(), weights, layers, MIXERS[recipe]) for row in tokens]))
    state, parts = model.initial_state(2), []
    for chunk in tokens.split(CHUNKS, dim=1):
        out = model(chunk, state=state)
        parts.append(out.logits)
        state = out.state
    seen = {"logits": largest(model(tokens).logits, expected), "decoding": largest(torch.cat(parts, 1), expected)}
    assert max(seen.values()) < EXACT
    proof(recipe, "the paper's equations in numpy loops", **seen)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_finite_differences_of_the_equations(case: str, proof: Proof) -> None:
    recipe, model = built(case)
    tokens = tokens_for(model.spec, batch=1, length=14)
    model.loss(tokens[:, :-1], tokens[:, 1:]).total.backward()
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    row, draw, errors = tokens[0].numpy(), np.random.default_rng(0), []

    def loss(name: str, change: Any) -> float:
        moved = {**weights, name: weights[name] + change}
        return mean_loss(logits(row[:-1], moved, len(model.spec.blocks), MIXERS[recipe]), row[1:])

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        direction = draw.standard_normal(parameter.shape)
        slope = (loss(name, STEP * direction) - loss(name, -STEP * direction)) / (2 * STEP)
        ours = (parameter.grad.numpy() * direction).sum()
        errors.append(abs(ours - slope) / max(parameter.grad.norm().item(), 1e-3))
        assert errors[-1] < SLOPES, name
    proof(recipe, "the paper's equations in numpy loops", gradients_by_finite_differences=max(errors))


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.9, 0.999)])
@torch.no_grad()
def test_lru_starts_on_its_ring(r_min: float, r_max: float) -> None:
    mixer = wt.build(wt.recipes.get("lru")(layers=1, width=32, hidden=4096, r_min=r_min, r_max=r_max)).blocks["0"].mixer
    eigenvalues, scale = mixer.decay(torch.float64)
    radius = eigenvalues.abs()
    assert r_min - 1e-6 <= radius.min().item() <= r_min + 0.03
    assert r_max - 1e-3 <= radius.max().item() <= r_max
    area = (radius.square() - r_min**2) / (r_max**2 - r_min**2)
    assert area.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * 4096))
    torch.testing.assert_close(scale, (1 - radius.square()).sqrt(), rtol=1e-3, atol=1e-6)
    phase = torch.exp(mixer.modes[1])
    assert phase.mean().item() == pytest.approx(math.pi, abs=5 * 2 * math.pi / math.sqrt(12 * 4096))
    for weight, deviation in ((mixer.into_real, 1 / 8), (mixer.into_imaginary, 1 / 8), (mixer.out_of_real, 1 / 64)):
        assert weight.std().item() == pytest.approx(deviation, rel=0.02)


@torch.no_grad()
def test_lru_states_of_white_noise_keep_its_variance() -> None:
    """γ = sqrt(1 - |λ|²) makes E|h|² = E|B u|² (section 3.4)."""
    mixer: LRULayer = (
        wt.build(wt.recipes.get("lru")(layers=1, width=16, hidden=8, r_min=0.8, r_max=0.9)).blocks["0"].mixer
    )
    x = torch.randn(64, 400, 16)
    state = mixer.initial_state(64, x.device, x.dtype)
    power = torch.zeros(8)
    for chunk in x.split(8, dim=1):
        _, state = mixer(chunk, Context(torch.arange(8)), state)
        power += state.hidden.square().sum(2).mean(0) / 50
    expected = mixer.into_real.square().sum(1) + mixer.into_imaginary.square().sum(1)
    torch.testing.assert_close(power / expected, torch.ones(8), rtol=0, atol=0.25)
    assert (power / expected).mean().item() == pytest.approx(1, abs=0.06)


@torch.no_grad()
def test_lru_without_memory_sees_only_the_token() -> None:
    """λ = 0 turns the recurrence off: what is left works on each position alone."""
    model = model_of("lru", dtype=torch.float64)
    tokens = tokens_for(model.spec)
    for block in model.blocks.values():
        block.mixer.modes[0] = 10.0  # |λ| = exp(-exp(10))
    whole = model(tokens).logits
    torch.testing.assert_close(whole[:, 7], model(tokens[:, 7:8]).logits[:, 0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_h3_starts_as_published() -> None:
    mixer: H3Layer = wt.build(wt.recipes.get("h3")(layers=1, width=512)).blocks["0"].mixer
    step = mixer.log_step.exp()
    assert 1e-3 <= step.min().item() < 1.2e-3
    assert 0.085 < step.max().item() <= 1e-1
    rates = torch.complex(-mixer.log_rate.exp(), mixer.frequency)
    torch.testing.assert_close(rates[5], -0.5 + 1j * math.pi * torch.arange(32), rtol=1e-6, atol=0)
    assert mixer.out_of.square().sum(2).mean().item() == pytest.approx(1, abs=0.03)  # complex, of unit variance
    assert mixer.shift_out.abs().max().item() == pytest.approx(1 / 8, abs=1e-3)
    assert mixer.shift_skip.std().item() == pytest.approx(1, abs=0.15)
    torch.testing.assert_close(mixer.shift_kernel(torch.float32), mixer.shift_out.T)  # B = e₁: C are the taps
    poles, _ = mixer.discretized(torch.float64)
    assert poles.abs().min().item() > 0.9
    assert poles.abs().max().item() < 1


def test_what_h3_and_lru_do_not_decay() -> None:
    for recipe, names in (
        ("h3", {"shift_into", "shift_skip", "log_step", "log_rate", "frequency", "into", "skip"}),
        ("lru", {"modes", "skip"}),
    ):
        model = wt.build(wt.recipes.get(recipe)(layers=1, width=16, vocab=10))
        free = {id(parameter) for parameter in parameter_groups(model, 0.1)[1]["params"]}
        kept = {name.split(".")[-1] for name, parameter in model.named_parameters() if id(parameter) in free}
        assert kept - {"weight", "bias"} == names


@pytest.mark.parametrize("heads", [12, 4, 1])
@pytest.mark.parametrize("length", [1, 5, 64, 101])
def test_h3_by_fft_equals_its_recurrence(heads: int, length: int, proof: Proof) -> None:
    """Values and gradients of one mixer, whose form without a state is the convolution."""
    mixer = H3(heads=heads, state=14).build(12).double()
    draw = torch.Generator().manual_seed(0)
    for name, parameter in mixer.named_parameters():
        scale, shift = (0.5, -3.0) if name == "log_step" else (0.4, 0.0)
        parameter.data.copy_(scale * torch.randn(parameter.shape, generator=draw, dtype=torch.float64) + shift)
    x = torch.randn(2, length, 12, generator=draw, dtype=torch.float64)
    context, state = Context(torch.arange(length)), mixer.initial_state(2, x.device, x.dtype)
    convolved, recurrent = mixer(x, context)[0], mixer(x, context, state)[0]
    values = largest(convolved, recurrent)
    weights, slopes = torch.randn(convolved.shape, generator=draw, dtype=torch.float64), []
    parameters = list(mixer.parameters())
    pairs = (torch.autograd.grad((form * weights).sum(), parameters) for form in (convolved, recurrent))
    for parameter, one, other in zip(parameters, *pairs, strict=True):
        slopes.append(((one - other).abs().max() / max(other.abs().max().item(), 1e-3)).item())
        assert slopes[-1] < 1e-10, parameter.shape
    assert values < 1e-10
    proof("H3 by FFT", "its recurrence", values=values, gradients=max(slopes))


@torch.no_grad()
def test_the_kernel_is_the_sum_over_modes() -> None:
    """K_t = 2 Re Σ_n C_n B̄_n Ā_n^t."""
    mixer: H3Layer = wt.build(wt.recipes.get("h3")(layers=1, width=8)).double().blocks["0"].mixer
    poles, weights = (each.numpy() for each in mixer.discretized(torch.float64))
    powers = poles[None] ** np.arange(200)[:, None, None]
    expected = torch.from_numpy(2 * (weights * powers).sum(2).real)
    found = impulse_response(torch.from_numpy(poles), torch.from_numpy(weights), 200)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("layers", "attention", "expected"),
    [(12, 1, [6]), (24, 2, [8, 16]), (32, 3, [8, 16, 24]), (32, 2, [10, 21]), (3, 0, []), (2, 2, [0, 1])],
)
def test_attention_is_where_the_released_hybrids_have_it(layers: int, attention: int, expected: list[int]) -> None:
    spec = wt.recipes.get("h3")(layers=layers, width=64, attention=attention)
    assert [index for index, block in enumerate(spec.blocks) if not isinstance(block.mixer, H3)] == expected


def test_what_cannot_be_is_refused() -> None:
    for settings in ({"hidden": 0}, {"hidden": 3, "r_min": 0.5, "r_max": 0.5}, {"hidden": 3, "phase_max": 0.0}):
        with pytest.raises(wt.InputError):
            LRU(**settings)
    with pytest.raises(wt.InputError, match="state must be positive and even, got 5"):
        H3(heads=4, state=5)
    with pytest.raises(wt.InputError, match="heads 5 does not divide width 64"):
        H3(heads=5).build(64)
