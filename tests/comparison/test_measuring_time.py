"""How arms are timed against each other, what is said of a slow kernel, and what a seed decides."""

import json
import math
from types import SimpleNamespace

import pytest

from windtunnel.comparison import arm_results, results, throughput
from windtunnel.comparison.request import plan_study
from windtunnel.execution import Execution
from windtunnel.selftest.small import request, written
from windtunnel.training.workload import Synthetic

TURNS: list[str] = []


class Fake:
    """An arm whose steps take a known time; it writes down when it had its turns."""

    def __init__(self, label, seconds):
        self.label, self.seconds, self.tokens, self.compile_seconds = label, seconds, 100, 7.0

    def warm_up(self):
        TURNS.append(f"{self.label} warm")

    def block(self):
        TURNS.append(self.label)
        return [self.seconds, 2 * self.seconds, self.seconds], self.seconds / 2


@pytest.fixture
def timing(monkeypatch):
    """`measure` of three arms in so many blocks."""
    TURNS.clear()
    seconds = {"llama": 0.1, "fast": 0.05, "slow": 0.4}
    monkeypatch.setattr(throughput, "_timed", lambda arm, *rest: Fake(arm["label"], seconds[arm["label"]]))
    monkeypatch.setattr(throughput, "measured_peak", lambda *given: 1e9)
    monkeypatch.setattr(throughput, "open_workload", lambda address: Synthetic)
    payload = {
        "arms": [{"label": label} for label in seconds],
        "baseline": "llama",
        "workload": {},
        "execution": Execution(device="cpu", threads=1).to_json(),
    }
    return lambda blocks: throughput.measure({**payload, "blocks": blocks}, lambda tokens: None)


@pytest.fixture
def measured(timing):
    return timing(4)


def test_arms_take_turns_and_turn_round(measured):
    """A B C C B A A B C C B A, after each has warmed up."""
    there, back = ["llama", "fast", "slow"], ["slow", "fast", "llama"]
    assert ["llama warm", "fast warm", "slow warm", *there, *back, *there, *back] == TURNS
    assert math.exp(measured["arms"]["fast"]["log_ratio"]) == pytest.approx(2.0)
    assert measured["arms"]["slow"]["process_ms"] == pytest.approx(200.0)
    assert measured["arms"]["slow"]["block_cv"] == 0.0


def test_one_block_has_no_interval_and_can_be_written(timing, monkeypatch):
    found = timing(1)
    json.dumps(found, allow_nan=False)
    fast = found["arms"]["fast"]
    assert math.exp(fast["log_ratio"]) == pytest.approx(2.0)
    assert (fast["log_ratio_se"], fast["block_cv"]) == (None, None)
    monkeypatch.setattr(arm_results, "costs", lambda study, arm: SimpleNamespace(flops_per_token=1e6))
    shown = arm_results._throughput(None, None, fast, found, None)
    assert shown["ratio"] == pytest.approx(2.0)
    assert shown["ci95"] is None
    read = results._throughput(SimpleNamespace(throughput=found, study=SimpleNamespace(baseline="llama")), "fast")
    assert (read.error, read.blocks, read.block_cv) == (None, 1, None)


def test_the_load_is_that_of_a_core(timing, monkeypatch):
    monkeypatch.setattr(throughput.os, "getloadavg", lambda: (6.0, 0.0, 0.0))
    monkeypatch.setattr(throughput.os, "cpu_count", lambda: 4)
    files = SimpleNamespace(throughput=timing(2), study=SimpleNamespace(baseline="llama"))
    assert results._throughput(files, "fast").load == 1.5


def test_compiling_is_timed_apart(measured):
    """It is on record, and in no step."""
    assert measured["arms"]["llama"]["compile_seconds"] == 7.0
    assert measured["arms"]["llama"]["tokens_per_second"] == pytest.approx(100 / 0.1)


@pytest.mark.parametrize(("ratio", "limited"), [(0.9, False), (0.75, False), (0.6, True)])
def test_a_slow_kernel_is_not_blamed_on_the_idea(monkeypatch, ratio, limited):
    """An arm of equal FLOPs that runs at less than 0.7 of the baseline's speed."""
    monkeypatch.setattr(arm_results, "costs", lambda study, arm: SimpleNamespace(flops_per_token=1e6))
    timed = {"log_ratio": math.log(ratio), "log_ratio_se": 0.01, "tokens_per_second": 1e3}
    found = arm_results._throughput(None, None, timed, {"peak_flops": 1e10}, None)
    assert found["ideal_ratio"] == 1.0
    assert ("implementation" in found["note"]) is limited
    assert found["mfu"] == pytest.approx(0.1)


def test_a_seed_decides_initial_values_and_data(tmp_path):
    study = plan_study(request(written(tmp_path), tmp_path / "study", "llama", "palm"))
    for arm in study.arms:
        for seed in study.seeds(arm):
            settings = study.run_settings(arm, 1e-3, seed)
            assert settings.seed == settings.data_seed == seed
