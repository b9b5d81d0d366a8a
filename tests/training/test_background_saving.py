"""Checkpoints written behind the loop's back: the same files, errors in the loop; going back to a kept one."""

import errno
import itertools
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import windtunnel.checkpoint
from tests.training.test_resuming import ONE_THREAD, Killed, assert_same, kill
from windtunnel import recipes
from windtunnel.data.shards import Dataset
from windtunnel.errors import InputError, WorkError
from windtunnel.selftest.order import after
from windtunnel.training.folder import RunFolder
from windtunnel.training.optimisers import build_optimisers
from windtunnel.training.optimisers.state import flatten_state, restore_state
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.writer import Writer

EVERYTHING = {"save_seconds": 0.0, "keep": 1000, "events": False}


SETTINGS = TrainingSettings(
    tokens=1536, context=16, batch_size=4, learning_rate=3e-3, horizons=(0.5, 1.0), evaluation_tokens=64
)


def spec() -> Any:
    return recipes.get("llama")(layers=1, width=16, heads=2, vocab=257, context=16)


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Callable[..., Any]:
    """Train 24 steps with a branch, keeping a checkpoint of every step."""

    def start(name: str, **options: Any) -> Path:
        train(spec(), SETTINGS, dataset, tmp_path / name, ONE_THREAD, **{**EVERYTHING, **options})
        return tmp_path / name

    return start


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, left alone."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(spec(), SETTINGS, dataset, folder, ONE_THREAD, **EVERYTHING)
    return folder


def _without_times(folder: Path) -> dict[str, Any]:
    index = json.loads((folder / "checkpoint.json").read_text())
    state = index["record"].get("state", index["record"].get("horizon"))
    for part in (state, state.get("trunk") or {}, *state.get("horizons", {}).values()):
        part.pop("seconds", None)
    for name in ("branch_seconds", "data_seconds", "metrics_bytes"):  # the log holds times as text
        state.pop(name, None)
    return dict(index)


def test_every_checkpoint_is_the_same_file_by_file(run: Callable[..., Any], whole: Path) -> None:
    folders = [whole / "checkpoints", run("in turn", background=False) / "checkpoints"]
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert names[0] == names[1]
    assert len(names[0]) == 28  # steps 0 to 23, one of the branch, the trunk after it, and two ends
    for name in names[0]:
        left, right = (_without_times(folder / name) for folder in folders)
        assert left == right  # the hash of every file of tensors included


@pytest.mark.parametrize("name", ["step-3", "step-10", "step-11-branch-0.5", "step-10-again", "step-22"])
def test_going_back_to_any_kept_checkpoint_gives_the_same_bits(
    run: Callable[..., Any], whole: Path, tmp_path: Path, name: str
) -> None:
    again = shutil.copytree(whole, tmp_path / "again")
    (again / "checkpoints" / "step-24" / "model.safetensors").write_bytes(b"to be made again")
    with pytest.raises(Killed):
        run("again", resume=True, start=name, stop=after(2, kill))
    run("again", resume=True)
    assert_same(again, whole)


def test_going_back_to_what_is_not_kept_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    folder = run("few", keep=2)
    result = (folder / "result.json").read_bytes()
    with pytest.raises(InputError, match="'step-7' is not among the kept checkpoints: step-22, step-23"):
        run("few", resume=True, start="step-7")
    with pytest.raises(InputError, match="needs resume=True"):
        run("few", start="step-22")
    with pytest.raises(InputError, match="holds no run"):
        run("none", resume=True, start="step-22")
    assert (folder / "result.json").read_bytes() == result
    assert not (tmp_path / "none").exists()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checkpoints that are not written before the event is set, nor in the main thread."""
    written, gate = windtunnel.checkpoint.save_file, threading.Event()

    def waits(*arguments: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert gate.wait(10)
        written(*arguments)

    monkeypatch.setattr(windtunnel.checkpoint, "save_file", waits)
    return gate


def test_training_goes_on_while_a_checkpoint_is_written(run: Callable[..., Any], slow_disk: threading.Event) -> None:
    steps: list[int] = []

    def note(*, calls: Any = itertools.count(1)) -> bool:  # noqa: B008
        steps.append(next(calls))
        if len(steps) == 12:
            slow_disk.set()
        return False

    # the branch's start saves at step 10 and its end at 12; a wait in between would never end
    folder = run("run", save_seconds=1e9, stop=note)
    assert len(steps) == 26
    assert (folder / "checkpoints" / "step-10" / "checkpoint.json").is_file()


def test_what_is_written_is_the_state_at_the_save(
    run: Callable[..., Any], slow_disk: threading.Event, tmp_path: Path, whole: Path
) -> None:
    """Steps taken while the writer is held up must not show in the checkpoint."""

    def release_and_kill() -> bool:
        slow_disk.set()
        return kill()

    with pytest.raises(Killed):
        run("run", save_seconds=1e9, stop=after(12, release_and_kill))
    folders = [each / "checkpoints" / "step-10" for each in (tmp_path / "run", whole)]
    for group in ("model", "optimiser"):
        left, right = (load_file(folder / f"{group}.safetensors") for folder in folders)
        assert all(torch.equal(left[name], right[name]) for name in right)


def test_what_is_restored_is_not_written_into() -> None:
    """A rewind saves what it restored: the optimiser must not go on in the tensors that are being written."""
    model = spec().build().initialize(0)
    optimisers = build_optimisers(model, SETTINGS)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimisers[0].step()
    weights = dict(model.named_parameters())
    kept = {name: value.clone() for name, value in flatten_state(optimisers, weights).items()}
    given = {name: value.clone() for name, value in kept.items()}
    restore_state(optimisers, weights, given)
    optimisers[0].step()
    assert all(torch.equal(given[name], kept[name]) for name in kept)


def test_a_full_disk_is_raised_in_the_loop_and_the_last_state_kept(
    run: Callable[..., Any], tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, calls = windtunnel.checkpoint.save_file, itertools.count()

    def fails_once(*arguments: Any) -> None:
        if next(calls) == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(*arguments)

    monkeypatch.setattr(windtunnel.checkpoint, "save_file", fails_once)
    with pytest.raises(WorkError, match=r"no space left on the disk.*--resume goes on from step-3"):
        run("run")
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-0", "step-1", "step-2", "step-3"]
    assert all(each.name != "checkpoint" for each in threading.enumerate())
    run("run", resume=True)
    assert_same(tmp_path / "run", whole)


def test_an_error_before_the_end_is_not_lost(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint of a run has no save after it that would wait for it."""

    def fails(self: Any, name: str, *_: Any) -> None:
        if name == "step-24":
            raise WorkError("no room")

    monkeypatch.setattr(RunFolder, "_write", fails)
    with pytest.raises(WorkError, match="no room"):
        run("run", save_seconds=1e9)


def test_the_writer_does_one_job_at_a_time_and_keeps_their_order() -> None:
    done: list[int] = []
    running = threading.Lock()

    def job(number: int) -> Callable[[], None]:
        def write() -> None:
            assert running.acquire(blocking=False)
            done.append(number)
            running.release()

        return write

    writer = Writer(background=True)
    for number in range(20):
        writer.submit(job(number))
    writer.wait()
    assert done == list(range(20))


def test_the_writer_raises_once_what_a_job_raised() -> None:
    def fails() -> None:
        raise WorkError("no")

    writer = Writer(background=True)
    writer.submit(fails)
    writer.close()
    assert writer.failed
    with pytest.raises(WorkError, match="no"):
        writer.wait()
    assert not writer.failed
    writer.submit(lambda: None)
    with pytest.raises(WorkError, match="no"):
        Writer(background=False).submit(fails)
