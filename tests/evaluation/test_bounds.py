"""Measured bounds: figures that can be worked out by hand, and what nGPT guarantees after training."""

import json
import math

import pytest
import torch

import windtunnel as wt
from tests.recipes.cases import CASES, model_of, tokens_for
from windtunnel.evaluation.bounds import Figure, bounds
from windtunnel.root import ModelLayer

ROUNDING = 1e-5  # float32 sums over a few hundred numbers


def trained(recipe: str) -> ModelLayer:
    """A few steps of Adam away from the start."""
    model = wt.build(wt.recipes.get(recipe)(vocab=50, layers=2, width=32, hidden=40, context=32))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    tokens = tokens_for(model.spec, length=16)
    for _ in range(5):
        optimiser.zero_grad()
        model.loss(tokens, tokens.roll(-1, 1)).total.backward()
        optimiser.step()
        model.project_()
    return model


def test_a_trained_ngpt_is_inside_all_of_its_bounds() -> None:
    model = trained("ngpt")
    found = bounds(model, tokens_for(model.spec, length=16))
    kinds = ("vector norm", "token product", "hidden norm", "hidden product", "output product", "score")
    for kind in kinds:
        assert found.of(kind), kind
        for figure in found.of(kind):
            assert figure.bound is not None, figure
            assert max(abs(figure.smallest), abs(figure.largest)) <= figure.bound * (1 + ROUNDING), figure
    for figure in found.of("vector norm") + found.of("hidden norm"):
        assert figure.smallest == pytest.approx(1.0, abs=ROUNDING)
    scale = model.get_submodule("blocks.1.mixer.query_key_scale")().detach()
    score = next(figure for figure in found.of("score") if figure.where == "blocks.1.mixer")
    assert score.bound == pytest.approx(math.sqrt(8) * scale.square().max().item())
    assert {figure.where for figure in found.of("scale")} == {
        "head.token_scale",
        *(
            f"blocks.{layer}.{name}"
            for layer in (0, 1)
            for name in (
                "residual.mixer_rate",
                "residual.mlp_rate",
                "mixer.query_key_scale",
                "mlp.up_scale",
                "mlp.gate_scale",
            )
        ),
    }


def test_a_trained_llama_has_none() -> None:
    model = trained("llama")
    found = bounds(model, tokens_for(model.spec, length=16))
    assert all(figure.bound is None for figure in found.figures)
    assert not found.of("scale")
    assert max(figure.largest for figure in found.of("vector norm")) > 1.5
    assert max(figure.largest for figure in found.of("hidden product")) > 2


@torch.no_grad()
def test_figures_by_hand() -> None:
    """A layer that adds nothing: hidden states are token vectors, scores are products of a known matrix."""
    spec = wt.recipes.get("llama")(vocab=4, layers=1, width=4, heads=1, hidden=8)
    block = spec.blocks[0]
    model = wt.build(spec.replace(blocks=(block.replace(mixer=block.mixer.replace(rope=None)),)))
    model.embedding.weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])) + 1.0)
    model.get_parameter("blocks.0.mixer.o.weight").zero_()
    model.get_parameter("blocks.0.mlp.down.weight").zero_()
    for name in ("q", "k"):
        model.get_parameter(f"blocks.0.mixer.{name}.weight").copy_(torch.diag(torch.tensor([1.0, 0.5, 0.25, 2.0])))
    found = bounds(model, torch.tensor([[0, 0, 3]]))
    by_place = {(figure.what, figure.where): figure for figure in found.figures}
    norms = [math.sqrt(3 + (1 + d) ** 2) for d in (1, 2, 3, 4)]
    assert by_place["vector norm", "embedding.weight"][2:5] == pytest.approx((norms[0], norms[3], sum(norms) / 4))
    products = [a + b + 2 + 2 for a in (1, 2, 3, 4) for b in (1, 2, 3, 4) if a != b]  # (1+a) + (1+b) + 1 + 1
    token = by_place["token product", "embedding.weight"]
    assert token[2:5] == pytest.approx((min(products), max(products), sum(products) / 12))
    assert by_place["hidden norm", "blocks.0"][2:4] == pytest.approx((norms[0], norms[3]))
    assert by_place["hidden product", "blocks.0"][2:5] == pytest.approx((7.0, 9.0, (7.0 + 9.0 + 9.0) / 3))
    assert by_place["vector norm", "blocks.0.mixer.q.weight"].condition == pytest.approx(8.0)
    assert by_place["vector norm", "blocks.0.mixer.o.weight"].condition is None
    # x Wᵀ W y / 2 of the normalised rows (2, 1, 1, 1) and (1, 1, 1, 5), each below or at the query's place.
    own, cross, last = 4 + 1 / 4 + 1 / 16 + 4, 2 + 1 / 4 + 1 / 16 + 20, 1 + 1 / 4 + 1 / 16 + 100
    sizes = [7 / 4, math.sqrt(7 * 28) / 4, 28 / 4]
    scores = [each / size / 2 for each, size in zip((own, cross, last), sizes, strict=True)]
    mean = (3 * scores[0] + 2 * scores[1] + scores[2]) / 6
    score = by_place["score", "blocks.0.mixer"]
    assert score[2:5] == pytest.approx((min(scores), max(scores), mean), rel=ROUNDING)
    json.dumps(found.to_json(), allow_nan=False)
    assert found.table().rows[0][:2] == ["vector norm", "embedding.weight"]


@pytest.mark.parametrize("case", CASES)
def test_every_recipe_can_be_measured(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec, length=12)
    before = model(tokens).logits
    found = bounds(model, tokens)
    assert found.of("vector norm")
    assert all(math.isfinite(value) for figure in found.figures for value in figure[2:5])
    assert isinstance(found.figures[0], Figure)
    json.dumps(found.to_json(), allow_nan=False)
    assert torch.equal(model(tokens).logits, before)
