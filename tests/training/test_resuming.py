"""A run killed at any moment and resumed ends with the same bits as one that was left alone."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from windtunnel.data.shards import Dataset
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.selftest.order import after
from windtunnel.selftest.small import run_settings
from windtunnel.training.interruption import Interrupted
from windtunnel.training.logs import MetricsLog
from windtunnel.training.run import RunResult, train
from windtunnel.training.settings import TrainingSettings

ONE_THREAD = Execution(device="cpu", threads=1)
TIMES = ("seconds", "data_seconds", "compile_seconds")


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def settings() -> TrainingSettings:
    return run_settings()


@pytest.fixture(scope="module")
def spec() -> Any:
    from windtunnel import recipes

    return recipes.get("llama")(layers=1, width=16, heads=2, vocab=257, context=16)


@pytest.fixture(scope="module")
def uninterrupted(
    spec: Any, settings: TrainingSettings, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(spec, settings, dataset, folder, ONE_THREAD, events=False)


def kill() -> bool:
    raise Killed


def assert_same(left: Path, right: Path) -> None:
    """Weights of every horizon, losses by document, metrics and results agree exactly, times apart."""
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (left, right))
    for result in (one, other):
        for record in (result, *result["horizons"].values()):
            for name in TIMES:
                record.pop(name, None)
    assert one == other
    for horizon in one["horizons"].values():
        tensors = [load_file(folder / horizon["checkpoint"] / "model.safetensors") for folder in (left, right)]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    with np.load(left / "documents.npz") as first, np.load(right / "documents.npz") as second:
        assert first.files == second.files
        assert all(np.array_equal(first[name], second[name]) for name in first.files)
    assert list(rows(left)) == list(rows(right))


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        row.pop("train_seconds", None)
        yield row


@pytest.mark.parametrize(
    ("step", "save_seconds"),
    [(1, 0.0), (5, 0.0), (9, 0.0), (10, 0.0), (21, 0.0), (46, 0.0), (5, 1e9), (10, 1e9), (19, 1e9)],
)
def test_killed_by_an_exception(
    step: int,
    save_seconds: float,
    spec: Any,
    settings: TrainingSettings,
    dataset: Dataset,
    uninterrupted: tuple[Path, RunResult],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train(spec, settings, dataset, folder, ONE_THREAD, stop=after(step, kill), save_seconds=save_seconds)
    assert not (folder / "result.json").exists()
    result = train(spec, settings, dataset, folder, ONE_THREAD, resume=True)
    assert_same(folder, uninterrupted[0])
    assert result.horizons.keys() == {"0.25", "0.5", "1.0"}


def test_stopped_on_request_again_and_again(
    spec: Any, settings: TrainingSettings, dataset: Dataset, uninterrupted: tuple[Path, RunResult], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for _ in range(6):  # 46 steps, seven at a time
        with pytest.raises(Interrupted, match="--resume") as caught:
            train(spec, settings, dataset, folder, ONE_THREAD, resume=True, stop=after(8, lambda: True), events=False)
        assert caught.value.folder == folder
        assert caught.value.signal is None
    train(spec, settings, dataset, folder, ONE_THREAD, resume=True, stop=after(8, lambda: True), events=False)
    assert_same(folder, uninterrupted[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_leave(
    number: signal.Signals,
    spec: Any,
    settings: TrainingSettings,
    dataset: Dataset,
    uninterrupted: tuple[Path, RunResult],
    tmp_path: Path,
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def send() -> bool:
        os.kill(os.getpid(), number)
        return False

    with pytest.raises(Interrupted) as caught:
        train(spec, settings, dataset, tmp_path / "run", ONE_THREAD, stop=after(15, send))
    assert caught.value.signal == number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    train(spec, settings, dataset, tmp_path / "run", ONE_THREAD, resume=True)
    assert_same(tmp_path / "run", uninterrupted[0])


def test_runs_outside_the_main_thread(
    spec: Any, settings: TrainingSettings, dataset: Dataset, uninterrupted: tuple[Path, RunResult], tmp_path: Path
) -> None:
    thread = threading.Thread(target=train, args=(spec, settings, dataset, tmp_path / "run", ONE_THREAD))
    thread.start()
    thread.join()
    assert_same(tmp_path / "run", uninterrupted[0])


def test_a_finished_run_is_not_trained_again(
    spec: Any, settings: TrainingSettings, dataset: Dataset, uninterrupted: tuple[Path, RunResult]
) -> None:
    folder, result = uninterrupted
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.name != "lock")
    assert train(spec, settings, dataset, folder, ONE_THREAD, resume=True) == result
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.name != "lock") == before


def test_other_execution_gives_the_same_run(
    spec: Any, settings: TrainingSettings, dataset: Dataset, uninterrupted: tuple[Path, RunResult], tmp_path: Path
) -> None:
    result = train(spec, settings, dataset, tmp_path / "run", ONE_THREAD.replace(checkpoint=True), events=False)
    assert result.batch_hash == uninterrupted[1].batch_hash
    assert result.loss == pytest.approx(uninterrupted[1].loss, abs=1e-4)


def test_rows_are_complete_and_single(uninterrupted: tuple[Path, RunResult]) -> None:
    logged = list(rows(uninterrupted[0]))
    steps = [(row["horizon"], row["step"]) for row in logged if "loss" in row]
    branches = [
        (0.25, 9),
        (0.25, 10),
        *((0.5, step) for step in range(17, 21)),
        *((1.0, step) for step in range(33, 41)),
    ]
    assert sorted(steps, key=str) == sorted([*((None, step) for step in range(1, 33)), *branches], key=str)
    assert [row["horizon"] for row in logged if "bits_per_byte" in row] == [0.25, 0.5, 1.0]


def test_damage_is_named_and_the_way_out_works(
    spec: Any, settings: TrainingSettings, dataset: Dataset, uninterrupted: tuple[Path, RunResult], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train(spec, settings, dataset, folder, ONE_THREAD, stop=after(30, kill), save_seconds=0.0, events=False)
    last = max((folder / "checkpoints").glob("step-*"), key=lambda path: path.stat().st_mtime_ns)
    damaged = last / "optimiser.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InputError, match=f"optimiser.safetensors: damaged.*delete .*{last.name}"):
        train(spec, settings, dataset, folder, ONE_THREAD, resume=True, events=False)
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    train(spec, settings, dataset, folder, ONE_THREAD, resume=True, events=False)
    assert_same(folder, uninterrupted[0])


def test_a_log_that_is_cut_back_counts_from_where_it_was_cut(tmp_path: Path) -> None:
    """Killed twice before a row was written in between: the second checkpoint must not count what the first cut off."""
    path = tmp_path / "metrics.jsonl"
    first = MetricsLog(path)
    first.append({"step": 1})
    length = first.settle()
    first.append({"step": 2})
    first.close()
    second = MetricsLog(path, length)
    assert second.settle() == length == path.stat().st_size
    second.close()
