"""A profiled run: the trace and the table say what was run, and the weights do not notice; shares of the peak."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_resuming import ONE_THREAD, assert_same
from windtunnel.data.shards import Dataset
from windtunnel.errors import InputError
from windtunnel.training.profile import read_operators
from windtunnel.training.run import train


def test_a_trace_holds_the_steps_and_changes_nothing(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path
) -> None:
    spec, settings = make_spec(layers=1), make_settings(tokens=512, evaluation_tokens=64)
    train(spec, settings, dataset, tmp_path / "plain", ONE_THREAD, events=False)
    train(spec, settings, dataset, tmp_path / "profiled", ONE_THREAD, events=False, profile=3)
    assert_same(tmp_path / "plain", tmp_path / "profiled")
    trace = json.loads((tmp_path / "profiled" / "profile" / "trace.pt.trace.json").read_text())
    updates = [each for each in trace["traceEvents"] if str(each.get("name")).startswith("Optimizer.step#")]
    assert len(updates) == 3  # Perfetto shows each as a slice
    assert all(each["ph"] == "X" and each["dur"] > 0 for each in updates)
    found = read_operators(tmp_path / "profiled")
    assert found["steps"] == 3
    times = [each["cpu_us"] for each in found["operators"]]
    assert times == sorted(times, reverse=True)
    assert 0.5 < sum(each["share"] for each in found["operators"]) <= 1
    assert any(each["operator"] == "aten::mm" and each["calls"] % 3 == 0 for each in found["operators"])


@pytest.mark.parametrize("steps", [0, 7])
def test_too_many_steps_are_refused(
    steps: int, dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"profile is {steps}; it must be from 1 to 6 steps"):
        train(make_spec(), make_settings(tokens=512), dataset, tmp_path / "run", ONE_THREAD, profile=steps)
    assert not (tmp_path / "run").exists()


def test_every_step_says_its_share_of_the_peak(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLOPs over shares over the peak add up to the time on the clock."""
    monkeypatch.setattr("windtunnel.training.run.measured_peak", lambda *_: 1e9)
    settings = make_settings(horizons=(0.5, 1.0), evaluation_tokens=64)
    folder, execution = tmp_path / "run", ONE_THREAD.replace(checkpoint=True)
    result = train(make_spec(), settings, dataset, folder, execution, progress=lambda _: None, events=False)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == 44
    per_token = steps[0]["model_flops"] / steps[0]["tokens"]
    seconds = sum(64 * per_token / row["mfu"] / 1e9 for row in steps)
    assert seconds == pytest.approx(result.seconds, rel=0.1)
    ratio = steps[0]["hw_flops"] / steps[0]["model_flops"]
    assert ratio > 1.2  # blocks are computed twice
    assert all(row["hfu"] / row["mfu"] == pytest.approx(ratio) for row in steps)


def test_the_record_of_a_run_counts_its_own_optimiser(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path
) -> None:
    settings = make_settings(tokens=128, optimiser="sgd", weight_decay=0.0, evaluation_tokens=64)
    train(make_spec(layers=1), settings, dataset, tmp_path / "run", ONE_THREAD, events=False)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["memory"]["optimiser"] == record["memory"]["parameters"] == record["memory"]["gradients"]
    assert set(record["optimiser_operations"]) == {"SGD with momentum", "projection"}
