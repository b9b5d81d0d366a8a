"""The benchmark of generation: equal weights give equal texts, and every section has its table, at tiny sizes."""

import math
from typing import Any

import pytest

from windtunnel.bench import generate
from windtunnel.bench.generate import Shape
from windtunnel.claims import Filed
from windtunnel.claims.benches import far_token

TINY = Shape(layers=3, width=64, vocab=300, prompt=12, tokens=6, near=20, far=40, training=4096)
QUICK = tuple(name for name in generate.SECTIONS if name != "drafts")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return generate.run(QUICK, rounds=2, threads=1, compiled=False, shape=TINY)


@pytest.mark.parametrize("name", generate.RIVALS)
def test_the_rival_has_the_same_weights(name: str, result: dict[str, Any]) -> None:
    """Both write the same text; the rival is compared with itself among the contestants."""
    found = result["sections"][name]
    assert found["same_text"]
    ratios = {each["label"]: each["transformers_over"]["value"] for each in found["contestants"]}
    assert list(ratios) == ["windtunnel, eager", "transformers"]
    assert ratios["transformers"] == 1
    assert found["contestants"][0]["share_of_products"]["value"] > 0
    assert found["compile_seconds"] is None


def test_every_section_has_a_table(result: dict[str, Any]) -> None:
    (far,) = far_token("griffin")(Filed("generate.json", result))
    assert far.setting.startswith("3 x 64, 40 over 20 tokens")
    tables = generate.tables(result)
    assert len(tables) == len(result["sections"]) == len(QUICK)
    for table in tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.slow
def test_drafts_of_trained_models() -> None:
    """Two models are trained, and every way of decoding writes the same text."""
    result = generate.run(["drafts"], rounds=2, threads=1, compiled=False, shape=TINY)
    found = result["sections"]["drafts"]
    assert list(found["written"]) == ["single tokens", "prompt lookup", "draft model"]
    assert {each["same"] for each in found["written"].values()} == {1.0}
    assert found["written"]["single tokens"]["tokens_a_pass"] == 1
    assert found["written"]["draft model"]["tokens_a_pass"] >= 1
    assert found["parameters"]["draft"] < found["parameters"]["model"]
    assert found["loss"]["model"] < math.log(TINY.vocab)
    assert found["replayed"]["kept"] <= found["replayed"]["drafted"]
    (table,) = generate.tables(result)
    assert len(table.rows) == 4
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_products_are_those_of_every_matrix() -> None:
    """A tied table is multiplied once, an untied one only as the head; convolutions have no product."""
    for recipe in ("llama", "griffin"):
        model = TINY.spec(recipe).build().initialize(0)
        matrices = sum(weight.numel() for weight in generate.matrices(model))
        products = [cost for cost in model.costs(1) if cost.mechanism not in ("attention core", "convolution")]
        assert 2 * matrices == sum(cost.model for cost in products)
