"""The benchmark of whole steps is fair: matched parameters, the same batch, and a step that trains."""

import pytest
import torch

import windtunnel as wt
from windtunnel.bench import steps
from windtunnel.claims import Filed
from windtunnel.claims.benches import parallel_speed, step_time
from windtunnel.ledger import n_body

SMALL = {"layers": 2, "width": 32, "vocab": 40, "context": 16}


@pytest.mark.parametrize("label", steps.CONTESTANTS)
@pytest.mark.parametrize("shape", [SMALL, *steps.SHAPES], ids=lambda shape: f"{shape['layers']}x{shape['width']}")
def test_parameters_are_matched(label: str, shape: dict[str, int]) -> None:
    recipe, settings = steps.CONTESTANTS[label]
    target = n_body(wt.recipes.get("llama")(**shape))
    spec = steps.matched(recipe, shape, settings, target)
    each = n_body(wt.recipes.get(recipe)(**shape, **settings, hidden=2)) - n_body(
        wt.recipes.get(recipe)(**shape, **settings, hidden=1)
    )
    hidden = spec.blocks[0].mlp.hidden
    lattice = next(step for step in (8, 4, 2, 1) if hidden % step == 0)
    assert abs(n_body(spec) - target) <= each * lattice / 2  # no other width of its lattice is nearer
    assert abs(n_body(spec) - target) <= max(0.01 * target, each / 2)
    assert lattice == 8 or shape["width"] < 256
    assert (spec == wt.recipes.get("llama")(**shape)) or label != "llama"


def test_a_step_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(steps, "Trainer", lambda *given: seen.append(steps_trainer(*given)) or seen[-1])
    step, _ = steps.step_of(wt.recipes.get("ngpt")(**SMALL), threads=torch.get_num_threads(), batch=2)
    before = {name: value.clone() for name, value in seen[0].model.named_parameters()}
    norms = [step() for _ in range(2)]
    assert norms[0] > 0
    assert norms[1] != norms[0]
    for name, value in seen[0].model.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert (seen[0].model.embedding.weight.norm(dim=1) - 1).abs().max() < 1e-6


steps_trainer = steps.Trainer


def test_the_table_has_every_contestant_at_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SHAPES", (SMALL,))
    monkeypatch.setattr(steps, "BATCH", 1)
    result = steps.run(rounds=2, threads=torch.get_num_threads())
    slower, faster = (list(step_time("ngpt", invert=each)(Filed("steps.json", result))) for each in (False, True))
    assert slower[0].value * faster[0].value == pytest.approx(1)
    assert slower[0].low * faster[0].high == pytest.approx(1)
    (parallel,) = parallel_speed(Filed("steps.json", result))
    assert parallel.value == pytest.approx(1 / result["shapes"][0]["parallel_over_serial"]["value"])
    table = steps.table(result)
    assert [row[0] for row in table.rows] == list(steps.CONTESTANTS)
    assert table.rows[0][4].startswith("1.000")
    assert [row[5] for row in table.rows] == ["", "1.02", "", "1.15", "1.30", ""]
