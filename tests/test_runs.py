"""Opening run folders: the right weights, or one clear line."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from windtunnel import recipes
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import Dataset, prepare
from windtunnel.errors import InputError
from windtunnel.evaluation.loss import evaluate_loss
from windtunnel.execution import Execution
from windtunnel.runs import load
from windtunnel.training.interruption import Interrupted
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings

ONE_THREAD = Execution(device="cpu", threads=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(1)
    for index in range(16):
        text = " ".join(draw.choice(["lift", "drag", "thrust", "weight"]) for _ in range(80))
        (folder / f"{index}.txt").write_text(text)
    return prepare(
        read_corpus([folder]), "bytes", context=16, heldout_tokens=200, cache=tmp_path_factory.mktemp("cache")
    )


def _spec(recipe: str = "diff_transformer") -> Any:
    return recipes.get(recipe)(layers=1, width=16, heads=2, vocab=257, context=16)


def _settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(
        **{"tokens": 640, "context": 16, "batch_size": 4, "learning_rate": 3e-3, "horizons": (0.5, 1.0), **changes}
    )


@pytest.fixture
def folder(dataset: Dataset, tmp_path: Path) -> Path:
    train(_spec(), _settings(), dataset, tmp_path / "run", ONE_THREAD, events=False)
    return tmp_path / "run"


def test_a_loaded_model_gives_the_recorded_loss(folder: Path, dataset: Dataset) -> None:
    for name, horizon in ((None, "1.0"), ("step-5-horizon-0.5", "0.5")):
        run = load(folder, name)
        assert run.spec == _spec()
        assert run.tokenizer is not None
        assert run.tokenizer.decode(run.tokenizer.encode("lift — 揚力")) == "lift — 揚力"
        losses = evaluate_loss(run.model, dataset.heldout, run.tokenizer.token_bytes, context=16)
        assert losses.loss == pytest.approx(run.record["result"]["horizons"][horizon]["loss"], rel=1e-6)
    assert not run.model.training


def test_an_unfinished_run_gives_its_last_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        train(_spec(), _settings(), dataset, tmp_path, ONE_THREAD, stop=lambda: next(steps) == 7, events=False)
    run = load(tmp_path)
    assert run.record["result"] is None
    assert Path(run.record["checkpoint"]).name == "step-6"  # a trunk of 8 steps, of which the branch took one
    with pytest.raises(InputError, match=r"no checkpoint 'step-99'; it has: .*step-6"):
        load(tmp_path, "step-99")


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder: nothing there"):
        load(tmp_path / "none")
    with pytest.raises(InputError, match=r"not a run folder: no run\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("spec.json", r"spec\.json: not found"),
        ("checkpoints/step-10/model.safetensors", r"model\.safetensors: missing"),
        ("checkpoints/step-10/checkpoint.json", r"checkpoint\.json: not found"),
    ],
)
def test_missing_files_are_named(folder: Path, name: str, words: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=words):
        load(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run.json", r"run\.json: damaged: it does not say identity\.spec\.fingerprint"),
        ("result.json", r"result\.json: damaged: it does not say horizons\.1\.0\.checkpoint"),
        ("spec.json", "expected an object with a 'kind'"),
        ("checkpoints/step-10/checkpoint.json", r"checkpoint\.json: not a checkpoint of format"),
    ],
)
def test_files_that_say_nothing_are_named(folder: Path, name: str, words: str) -> None:
    (folder / name).write_text("{}")
    with pytest.raises(InputError, match=words):
        load(folder)
    (folder / name).write_text("{")
    with pytest.raises(InputError, match="damaged or unreadable"):
        load(folder)


def test_a_checkpoint_that_does_not_say_where_it_stands_is_named(folder: Path) -> None:
    (folder / "result.json").unlink()
    path = folder / "checkpoints" / "step-10" / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "record": {}}))
    with pytest.raises(InputError, match=r"checkpoint\.json: damaged: it does not say final"):
        load(folder)


def test_a_changed_spec_is_noticed(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    spec["blocks"][0]["mixer"]["eps"] = 0.5
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(InputError, match="changed since the run was begun"):
        load(folder)


def test_damaged_weights_are_noticed(folder: Path) -> None:
    path = folder / "checkpoints" / "step-10" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        load(folder)


def test_weights_are_stored_bit_for_bit(folder: Path) -> None:
    left, right = load(folder), load(folder)
    assert all(torch.equal(a, b) for a, b in zip(left.model.parameters(), right.model.parameters(), strict=True))
