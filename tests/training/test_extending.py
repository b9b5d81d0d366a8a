"""Extension: training from given weights, resumed to the bit, held to the run that it came from."""

import json

import pytest
import torch

from tests.training.conftest import EXECUTION, weights
from windtunnel.checkpoint import read_json
from windtunnel.errors import InputError
from windtunnel.training.extending import extend, plan
from windtunnel.training.interruption import Interrupted
from windtunnel.training.run import train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def first(make_spec, make_settings, dataset, place, monkeypatch):
    """A finished run whose text is in the cache."""
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(dataset.folder.parent))
    train(make_spec(), make_settings(tokens=1280), dataset, place / "first", EXECUTION, resume=True)
    return place / "first"


def run_of(extension, out, **options):
    return extend(extension, out, EXECUTION, events=False, background=False, **options)


def test_a_step_of_no_size_leaves_the_weights(first, tmp_path):
    made = plan(first, "yarn", 2, 128, learning_rate=1e-30)
    run_of(made, tmp_path / "out")
    before = weights(first / "checkpoints" / "step-20")
    after = weights(tmp_path / "out" / "checkpoints" / f"step-{made.settings.steps}")
    assert all(torch.allclose(before[name], after[name], atol=1e-12) for name in before)


def test_what_it_is_is_on_record(first, tmp_path):
    made = plan(first, "linear", 2, 256)
    assert (made.settings.context, made.settings.batch_size) == (32, 2)
    assert made.settings.learning_rate == pytest.approx(3e-4)
    result = run_of(made, tmp_path / "out")
    record = read_json(tmp_path / "out" / "run.json")
    assert record["extended"] == {"trained": 16, "method": "linear", "factor": 2.0, "run": str(first)}
    index = json.loads((first / "checkpoints" / "step-20" / "checkpoint.json").read_text())
    assert record["identity"]["origin"] == {"model.safetensors": index["files"]["model.safetensors"]["xxh3"]}
    assert made.spec.blocks[0].mixer.rope.scaling.factor == 2
    assert result.horizons["1.0"]["tokens"] == 256


def test_it_resumes_to_the_bit(first, tmp_path):
    made = plan(first, "yarn", 2, 512)
    run_of(made, tmp_path / "whole")
    asked = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        run_of(made, tmp_path / "cut", stop=lambda: next(asked))
    run_of(made, tmp_path / "cut", resume=True)
    name = f"checkpoints/step-{made.settings.steps}"
    one, other = (weights(tmp_path / folder / name) for folder in ("whole", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_other_weights_are_another_run(first, make_spec, make_settings, dataset, tmp_path):
    train(make_spec(), make_settings(tokens=1280, seed=7), dataset, tmp_path / "second", EXECUTION)
    settings = {"seed": 3}
    run_of(plan(first, "yarn", 2, 128, **settings), tmp_path / "out")
    with pytest.raises(InputError, match=r"this is another run: origin\.model\.safetensors was"):
        run_of(plan(tmp_path / "second", "yarn", 2, 128, **settings), tmp_path / "out", resume=True)


def test_what_cannot_be_extended_is_refused(first, make_spec, make_settings, dataset, tmp_path):
    for changes, said in (
        ({"method": "yarm"}, "did you mean yarn"),
        ({"factor": 1.0}, "1 times 16 tokens is no longer than 16"),
    ):
        with pytest.raises(InputError, match=said):
            plan(first, **{"method": "yarn", "factor": 2.0, "tokens": 128, **changes})
    run_of(plan(first, "none", 2, 128), tmp_path / "longer")
    with pytest.raises(InputError, match=f"is extended already; extend {first}"):
        plan(tmp_path / "longer", "yarn", 2, 128)
    train(make_spec("gpt3"), make_settings(tokens=256), dataset, tmp_path / "learned", EXECUTION)
    with pytest.raises(InputError, match=r"its positions are learned, .* --method linear interpolates their table"):
        plan(tmp_path / "learned", "yarn", 2, 128)
    with pytest.raises(InputError, match="its positions end at 16, and --factor 2 needs 32 tokens"):
        plan(tmp_path / "learned", "none", 2, 128)
