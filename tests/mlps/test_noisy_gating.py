"""Noisy top-k gating: the estimated load against draws of the noise, and the gates against the paper's equations."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tests.mlps.test_routers import context_of, layer_of, random_x
from tests.proof import Proof
from windtunnel.init import FanIn, initialize
from windtunnel.mlps import Experts, NoisyTopK, balance
from windtunnel.mlps.noisy import load_probability


def test_the_load_estimate_is_what_drawing_an_experts_noise_again_gives(proof: Proof) -> None:
    """P(x, i), all other noise held fixed (eq. 8), by 200,000 draws of each component."""
    draw = np.random.default_rng(0)
    clean, deviation = draw.normal(size=5), np.exp(draw.normal(size=5) / 2)
    noisy, choices = clean + deviation * draw.normal(size=5), 2
    best = torch.tensor(np.sort(noisy)[::-1][: choices + 1].copy())[None]
    given = [torch.tensor(each)[None] for each in (clean, noisy, deviation)]
    found = load_probability(*given, choices, best)[0].numpy()
    errors = []
    for expert in range(5):
        threshold = np.sort(np.delete(noisy, expert))[-choices]
        again = clean[expert] + deviation[expert] * draw.normal(size=200_000)
        errors.append(abs(found[expert] - (again > threshold).mean()))
        assert found[expert] == pytest.approx(norm.cdf((clean[expert] - threshold) / deviation[expert]), abs=1e-12)
    assert max(errors) < 5e-3
    proof("sparsely_gated_moe", "200,000 draws of an expert's noise", load_probability=max(errors))


def test_expected_loads_are_those_of_many_draws() -> None:
    layer, x = layer_of(NoisyTopK(choices=2), experts=5), random_x(1, 6)
    clean = x.flatten(0, 1) @ layer.router.weight.T
    deviation = torch.nn.functional.softplus(x.flatten(0, 1) @ layer.router.noise.T) + 1e-2
    estimates, hard = torch.zeros(5, dtype=torch.float64), torch.zeros(5)
    with torch.no_grad():
        for seed in range(3000):
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            noisy = clean + noise * deviation
            best = noisy.topk(3)
            estimates += load_probability(clean, noisy, deviation, 2, best.values).sum(0)
            hard += balance.counts(best.indices[:, :2], 5)
    torch.testing.assert_close(estimates.float() / 3000, hard / 3000, rtol=0.03, atol=0.03)


def test_with_little_noise_the_estimate_is_the_count() -> None:
    clean = torch.randn(20, 6, dtype=torch.float64)
    best = clean.topk(3)
    estimate = load_probability(clean, clean, torch.full_like(clean, 1e-9), 2, best.values).sum(0)
    torch.testing.assert_close(estimate.float(), balance.counts(best.indices[:, :2], 6))


def test_gates_and_losses_by_the_equations(proof: Proof) -> None:
    """In numpy, with the layer's own draw of the noise."""
    layer, x = layer_of(NoisyTopK(choices=3, importance=0.3, load=0.7), experts=6), random_x()
    context = context_of(x, seed=4)
    route = layer.route(x, context)
    rows, w, w_noise = (
        x.flatten(0, 1).numpy(),
        *(each.detach().numpy() for each in (layer.router.weight, layer.router.noise)),
    )
    clean, deviation = rows @ w.T, np.log1p(np.exp(rows @ w_noise.T)) + 1e-2
    noisy = clean + deviation * torch.randn(30, 6, generator=context.generator("router noise")).double().numpy()
    gates, load = np.zeros((30, 6)), np.zeros(6)
    for row in range(30):
        best = np.argsort(-noisy[row])[:3]
        gates[row, best] = np.exp(noisy[row, best]) / np.exp(noisy[row, best]).sum()
        for expert in range(6):
            threshold = np.sort(np.delete(noisy[row], expert))[-3]
            load[expert] += norm.cdf((clean[row, expert] - threshold) / deviation[row, expert])
    found = torch.zeros(30, 6, dtype=torch.float64).scatter(1, route.chosen, route.gates.detach()).numpy()
    importance = gates.sum(0)
    expected = {
        "importance_loss": 0.3 * importance.var() / importance.mean() ** 2,
        "load_loss": 0.7 * load.var() / load.mean() ** 2,
    }
    errors = {name: abs(route.losses[name].item() / value - 1) for name, value in expected.items()}
    errors["gates"] = float(np.abs(found - gates).max())
    assert max(errors.values()) < 1e-6
    proof("sparsely_gated_moe", "numpy by the paper's equations", **errors)


def test_routing_starts_as_balanced_noise() -> None:
    layer = Experts(experts=8, hidden=4, router=NoisyTopK(choices=2)).build(16)
    initialize(layer, FanIn(), seed=0, layers=1)
    x = torch.randn(4, 500, 16)
    routes = [layer.route(x, context_of(x, seed)) for seed in (1, 1, 2)]
    assert torch.equal(routes[0].chosen, routes[1].chosen)
    assert not torch.equal(routes[0].chosen, routes[2].chosen)
    assert routes[0].metrics["load"].tolist() == pytest.approx([0.25] * 8, abs=0.05)
    # Two gates of the largest of eight draws with deviation ln 2 + 0.01: never far from one half.
    assert 0.5 < routes[0].gates[:, 0].mean().item() < 0.7
    assert math.log(2) + 0.01 == pytest.approx(0.7031, abs=1e-4)
    out = layer(x, context_of(x, 1))
    assert bool(out.hidden.isfinite().all())
    gradients = torch.autograd.grad(sum(out.losses.values()), list(layer.router.parameters()))
    assert all(bool(gradient.isfinite().all()) and bool(gradient.any()) for gradient in gradients)


def test_without_noise_the_load_is_a_count() -> None:
    x = random_x()
    for seed, choices in ((None, 2), (3, 4)):
        layer = layer_of(NoisyTopK(choices=choices), experts=4)
        route = layer.route(x, context_of(x, seed))
        count = balance.counts(route.chosen, 4)
        assert route.losses["load_loss"].item() == pytest.approx(
            0.1 * balance.squared_variation(count).item(), rel=1e-6
        )
        assert not route.losses["load_loss"].requires_grad


def test_the_noise_is_met_in_training_alone() -> None:
    layer = layer_of(NoisyTopK(choices=2), experts=4)
    assert layer.router.idle_parameters() == 4 * 8
    router = [cost for cost in layer.costs(10) if cost.mechanism == "router"]
    assert sum(cost.model for cost in router) == sum(cost.training for cost in router) == 2 * 4 * 8
