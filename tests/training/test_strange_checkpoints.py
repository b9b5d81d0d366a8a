"""Checkpoints that another run wrote, and clocks that go backwards: said by name, or of no account."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import windtunnel as wt
from tests.training.conftest import weights
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import Dataset, prepare
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.selftest.order import after
from windtunnel.training.interruption import Interrupted
from windtunnel.training.run import train

ONE_THREAD = Execution(device="cpu", threads=1)
LAST = "step-6"


@pytest.fixture
def run(dataset: Dataset, make_spec: Any, make_settings: Any) -> Callable[..., Any]:
    """Train eight steps in a folder, or six of them and stop."""

    def start(folder: Path, *, data: Dataset = dataset, spec: Any = None, stops: bool = False, **changes: Any) -> Any:
        settings = make_settings(**{"tokens": 512, "evaluation_tokens": 64, **changes})
        model, stop = make_spec(**{"layers": 1, **(spec or {})}), after(7, lambda: True) if stops else None
        options = {"events": False, "save_seconds": 0.0, "resume": True, "stop": stop}
        return train(model, settings, data, folder, ONE_THREAD, **options)

    return start


@pytest.fixture
def other_text(tmp_path: Path) -> Dataset:
    """As long as the usual one, so that every shape agrees."""
    (tmp_path / "texts").mkdir()
    for index in range(12):
        (tmp_path / "texts" / f"{index}.txt").write_text(f"{index} " + "drag and lift of a wing " * 40)
    return prepare(read_corpus([tmp_path / "texts"]), "bytes", context=16, heldout_tokens=400, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 7}, "settings.seed is 7 there and 1 here"),
        ({"learning_rate": 1e-3}, "settings.learning_rate is 0.001 there and 0.003 here"),
        ({"spec": {"context": 32}}, "spec.fingerprint is .* there"),
        ({"data": "other"}, "data.batch_hash is .* there"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    changes: dict[str, Any], words: str, run: Callable[..., Any], other_text: Dataset, tmp_path: Path
) -> None:
    """Its tensors have the names and the shapes of the run's own: nothing else would tell."""
    with pytest.raises(Interrupted):
        run(tmp_path / "own", stops=True)
    with pytest.raises(Interrupted):
        run(tmp_path / "other", stops=True, **{**changes, **({"data": other_text} if "data" in changes else {})})
    kept, strange = (tmp_path / name / "checkpoints" / LAST for name in ("own", "other"))
    kept.rename(tmp_path / "safe")
    shutil.copytree(strange, kept)
    with pytest.raises(InputError, match=rf"{LAST}: was written by another run: .*{words}.*Take it out"):
        run(tmp_path / "own")
    with pytest.raises(InputError, match=f"{LAST}: was written by another run: .*{words}"):
        wt.load(tmp_path / "own")
    shutil.rmtree(kept)
    assert wt.load(tmp_path / "own").record["checkpoint"].endswith("step-5")
    assert run(tmp_path / "own").loss == run(tmp_path / "whole").loss


def test_the_weights_of_another_run_are_not_opened_as_this_ones(run: Callable[..., Any], tmp_path: Path) -> None:
    for seed in (1, 2):
        run(tmp_path / str(seed), seed=seed)
    for name in ("result.json", "metrics.jsonl", "documents.npz"):
        shutil.copy(tmp_path / "2" / name, tmp_path / "1" / name)
    shutil.rmtree(tmp_path / "1" / "checkpoints")
    shutil.copytree(tmp_path / "2" / "checkpoints", tmp_path / "1" / "checkpoints")
    with pytest.raises(InputError, match=r"was written by another run: settings\.seed is 2 there and 1 here"):
        wt.load(tmp_path / "1")


def test_other_skips_are_no_other_run(run: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path / "run", stops=True)
    run(tmp_path / "run", skips=((6, 7),))
    wt.load(tmp_path / "run")


def test_a_clock_that_goes_backwards_changes_nothing(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest checkpoint bears the oldest date, and today is before the run was begun."""
    with pytest.raises(Interrupted):
        run(tmp_path / "run", stops=True)
    found = sorted((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    assert [path.name for path in found][-1] == LAST
    for age, folder in enumerate(found):
        for path in (folder, *folder.iterdir()):
            os.utime(path, (2**31 - 1 - age * 10**8,) * 2)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert wt.load(tmp_path / "run").record["checkpoint"].endswith(LAST)
    run(tmp_path / "run")
    run(tmp_path / "whole")
    left, right = (weights(tmp_path / name / "checkpoints" / "step-8") for name in ("run", "whole"))
    assert all(bool((left[name] == right[name]).all()) for name in left)
