"""Folders in use, changed settings, full disks: one clear line, and nothing lost."""

import errno
import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import windtunnel.checkpoint
from windtunnel.data.shards import Dataset
from windtunnel.errors import InputError, WorkError
from windtunnel.execution import Execution
from windtunnel.training import fitting
from windtunnel.training.run import train

ONE_THREAD = Execution(device="cpu", threads=1)


@pytest.fixture
def run(dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path) -> Callable[..., Any]:
    """Train eight steps in `tmp_path`/run, with changes of settings and options of `train`."""

    def start(
        *,
        spec: dict[str, Any] | None = None,
        folder: Path | None = None,
        execution: Execution = ONE_THREAD,
        options: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Any:
        settings = make_settings(**{"tokens": 512, "evaluation_tokens": 64, **changes})
        model = make_spec(**{"layers": 1, **(spec or {})})
        return train(model, settings, dataset, folder or tmp_path / "run", execution, events=False, **(options or {}))

    return start


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 1e-3}, ["settings.learning_rate", "0.003", "0.001"]),
        ({"tokens": 1024}, ["settings.tokens", "batch_hash"]),
        ({"data_seed": 4}, ["settings.data_seed", "data.batch_hash"]),
        ({"betas": (0.9, 0.99)}, ["settings.betas.1", "0.95", "0.99"]),
        ({"spec": {"width": 32}}, ["spec.fingerprint"]),
        ({"execution": ONE_THREAD.replace(dtype="tf32")}, ["execution.dtype", "float32", "tf32"]),
    ],
)
def test_resuming_with_changes_is_refused(run: Callable[..., Any], changes: dict[str, Any], words: list[str]) -> None:
    run()
    with pytest.raises(InputError) as caught:
        run(options={"resume": True}, **changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_folder_with_a_run_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    run()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="already holds a run; go on with it by --resume"):
        run()
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_folder_with_other_things_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=re.escape("holds notes.txt but no run")):
        run(folder=tmp_path, options={"resume": True})
    with pytest.raises(InputError, match="is a file"):
        run(folder=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


HOLDER = """
import fcntl, os, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(str(os.getpid()))
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"in use by another process .*{holder.pid}"):
            run()
        holder.kill()
    run()


def test_what_does_not_fit_is_refused_before_anything_is_written(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="vocab is 256, but the tokenizer has 257"):
        run(spec={"vocab": 256})
    with pytest.raises(InputError, match="context is 16, but the model is meant for at most 8"):
        run(spec={"context": 8})
    with pytest.raises(InputError, match="keep is 0"):
        run(options={"keep": 0})
    with pytest.raises(InputError, match="device is 'cuda:99'"):
        run(execution=Execution(device="cuda:99"))
    monkeypatch.setattr(fitting, "_memory_of", lambda device: 1000.0)
    with pytest.raises(InputError, match=r"memory: weights, gradients and optimiser state take .* has 0\.0 GiB"):
        run()
    assert not (tmp_path / "run").exists()


def test_a_full_disk_keeps_the_last_good_state(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = windtunnel.checkpoint.save_file
    calls = iter(range(100))

    def fails_later(*arguments: Any) -> None:
        if next(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(*arguments)

    monkeypatch.setattr(windtunnel.checkpoint, "save_file", fails_later)
    with pytest.raises(WorkError, match=r"no space left on the disk.*--resume goes on from step-1"):
        run(options={"save_seconds": 0.0})
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-0", "step-1"]
    monkeypatch.undo()
    resumed = run(options={"resume": True})
    assert resumed.loss == run(folder=tmp_path / "other").loss


def test_an_unwritable_place_is_named(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        run(folder=tmp_path / "file" / "run")


def test_kept_checkpoints(run: Callable[..., Any], tmp_path: Path) -> None:
    run(tokens=2560, horizons=(0.5, 1.0), options={"save_seconds": 0.0, "keep": 3})
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"step-37", "step-38", "step-39", "step-40", "step-20-horizon-0.5"}


def test_what_a_run_leaves(run: Callable[..., Any], tmp_path: Path) -> None:
    result = run()
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "spec.json", "result.json", "metrics.jsonl", "documents.npz", "checkpoints", "tokenizer", "lock"
    }  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    assert record["identity"]["settings"]["learning_rate"] == 3e-3
    assert record["execution"]["dtype"] == "float32"
    assert record["data"]["tokenizer"] == "bytes-257"
    stored = json.loads((folder / "result.json").read_text())
    assert stored == result.to_json()
    assert stored["horizons"]["1.0"]["tokens"] == 512
    assert stat.S_IMODE((folder / "result.json").stat().st_mode) & stat.S_IRUSR
