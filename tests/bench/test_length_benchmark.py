"""The experiment on length at a size that means nothing."""

import json
from pathlib import Path

import pytest

from windtunnel.bench.length import ARMS, METHODS, Experiment, run, spec_of
from windtunnel.claims import Filed
from windtunnel.claims.lengths import past_length, trained_further
from windtunnel.errors import InputError
from windtunnel.recipes import names


def test_arms_are_recipes_that_read_on():
    experiment = Experiment()
    for label in ARMS:
        assert ARMS[label] in names()
        spec = spec_of(experiment, label, 64)
        assert (spec.context, spec.width, spec.depth) == (64, 64, 3)
    assert spec_of(experiment, "Griffin", 64).blocks[2].mixer.window == 33


def test_too_little_is_refused():
    with pytest.raises(InputError, match="at least a step of 2,048"):
        Experiment(tokens=100)


@pytest.mark.slow
def test_a_whole_experiment(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    tiny = Experiment(lengths=(16,), tokens=4096, tuned=4096, seeds=1, width=16, pieces=2, threads=1)
    result, tables = run(tiny, tmp_path / "out", lambda words: None)
    arms = result["length"]["tasks"][0]["arms"]
    assert [arm["label"] for arm in arms] == [f"{label} 16" for label in ARMS]
    extended = [arm["label"] for arm in result["scaling"]["tasks"][0]["arms"]]
    assert extended == ["RoPE 16", *(f"{method}, trained further" for method in METHODS)]
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert len(tables) == 2
    filed = Filed("length.json", json.loads(json.dumps(result)))
    (found,) = past_length("Griffin", 4.0)(filed)
    assert (found.setting, found.doubts) == ("3 x 16, 4.1k bytes, trained at 16 tokens, 1 seed", ("one seed",))
    (griffin,) = (arm for arm in arms if arm["label"] == "Griffin 16")
    at_four = next(point for point in griffin["methods"][0]["points"] if point["multiple"] == 4.0)
    assert found.value == pytest.approx(at_four["excess"]["value"])
    assert len(list(trained_further("yarn", 4.0)(filed))) == 1
    again, _ = run(tiny, tmp_path / "out", lambda words: None)
    assert again["length"] == result["length"]
