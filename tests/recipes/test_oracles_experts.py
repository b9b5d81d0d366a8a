"""GShard, Switch and the rumour in whole models: null settings, initial values, and the arithmetic of the report."""

import math

import pytest
import torch

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import SIZES, model_of, tokens_for
from windtunnel.ledger import count
from windtunnel.ledger.parameters import Parameters


def test_one_switch_expert_is_the_dense_model_in_training_too(proof: Proof) -> None:
    one = model_of("switch", dtype=torch.float64, experts=1, every=1, layers=2)
    none = model_of("switch", dtype=torch.float64, every=3, layers=2)  # the third block would be the first with experts
    weights = dict(one.named_parameters())
    with torch.no_grad():
        for name, parameter in none.named_parameters():
            stacked = weights.get(name.removesuffix(".weight"))
            parameter.copy_(weights[name] if stacked is None else stacked[0])
    tokens = tokens_for(one.spec)
    ours, theirs = (model.loss(tokens, tokens, seed=3).cross_entropy.item() for model in (one, none))
    difference = (one(tokens).logits - none(tokens).logits).abs().max().item()
    assert difference < 1e-12
    assert ours == pytest.approx(theirs, abs=1e-12)
    proof("switch", "the dense model, with one expert", logits=difference)


def test_switch_starts_at_a_tenth_of_the_variance() -> None:
    model = wt.build(wt.recipes.get("switch")(**SIZES))
    for name in ("blocks.1.mlp.up", "blocks.1.mlp.down", "blocks.0.mlp.up.weight", "blocks.1.mixer.q.weight"):
        weight = model.get_parameter(name)
        assert weight.std().item() == pytest.approx(math.sqrt(0.1 / weight.shape[-1]), rel=0.05)
    assert model.get_parameter("embedding.weight").std().item() == pytest.approx(1, rel=0.05)


def rumoured(**settings: object) -> Parameters:
    with torch.device("meta"):
        return count(wt.recipes.get("gpt4_rumour")(size="1.8t", **settings).build())


def test_arithmetic_of_the_rumour(proof: Proof) -> None:
    """16 x 111B + 55B = 1831B, of which a token meets 2 x 111B + 55B = 277B; 8 experts: half of it at the same 277B."""
    sixteen, eight = rumoured(), rumoured(experts=8)
    one = 120 * 2 * 14_848 * 31_232
    assert one == pytest.approx(111e9, rel=0.005)
    assert sixteen.n_total - 16 * one == pytest.approx(55e9, rel=0.01)
    assert sixteen.n_active == pytest.approx(277e9, rel=0.005)
    assert sixteen.n_active - eight.n_active == 120 * 8 * 14_848  # the router's rows alone
    assert sixteen.n_total - eight.n_total == 8 * one + 120 * 8 * 14_848
    gap = abs(sixteen.n_total / 1831e9 - 1)
    proof("gpt4_rumour", "16 x 111B + 55B, as reported", parameters=gap)


def test_training_steps_report_their_load() -> None:
    model = model_of("gshard", every=1)
    tokens = tokens_for(model.spec)
    loss = model.loss(tokens, tokens, seed=1)
    again, other, plain = (model.loss(tokens, tokens, seed=seed) for seed in (1, 2, None))
    assert loss.total.item() == again.total.item() != other.total.item()
    assert plain.total.item() != loss.total.item()
    assert {name.split(".")[-1] for name in loss.metrics} == {
        "load",
        "load_variation",
        "dropped",
        "unserved",
        "router_entropy",
    }
    assert loss.metrics["blocks.0.load"].shape == (16,)
    assert loss.metrics["blocks.0.dropped"] > 0
    assert plain.metrics["blocks.0.dropped"].item() == pytest.approx(0, abs=1e-6)
    assert set(loss.losses) == {f"blocks.{layer}.balance_loss" for layer in range(3)}


def test_a_step_down_the_gradient_lowers_the_training_loss() -> None:
    """With noise, jitter and capacity on, and the same seed."""
    for name in ("sparsely_gated_moe", "switch", "gshard"):
        model = model_of(name)
        tokens = tokens_for(model.spec)
        before = model.loss(tokens, tokens, seed=0).total
        gradients = torch.autograd.grad(before, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(0.02 * gradient)
        assert model.loss(tokens, tokens, seed=0).total.item() < before.item()
