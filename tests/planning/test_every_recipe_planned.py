"""Whatever a model is made of, it can be planned."""

import pytest

from windtunnel import recipes
from windtunnel.planning import Settings, find, plan
from windtunnel.planning.page import render

SMALL = {"layers": 2, "width": 64, "vocab": 64, "context": 64}


@pytest.mark.parametrize("name", recipes.names())
def test_a_plan_of_each_recipe(name: str) -> None:
    spec = recipes.build(name, **SMALL)
    made = plan(spec, 64, find("h100"), 2, Settings(batch=8))
    parts = {part.name: part.size for part in made.step.memory}
    assert parts["activations"] > 0
    assert {step.layout.mesh.words for step in made.others} >= {"replicate=2", "shard=2"}
    assert 0 < made.step.mfu < 1
    assert made.serving.most >= 1
    assert render(made, name).startswith("<!doctype html>")
