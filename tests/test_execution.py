"""Execution settings: what they resolve to, and that they are put back."""

import json
from pathlib import Path

import pytest
import torch

from windtunnel.errors import InputError
from windtunnel.execution import Execution, host_memory, measured_peak
from windtunnel.spec import from_json


def test_settings_round_trip() -> None:
    execution = Execution(device="cpu", compile=True, threads=2)
    assert from_json(json.loads(json.dumps(execution.to_json()))) == execution


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", "cpu:x"])
def test_devices_that_are_not_there_are_named(device: str) -> None:
    with pytest.raises(InputError, match=f"device is '{device}'"):
        Execution(device=device).resolve()


def test_impossible_settings_are_named() -> None:
    with pytest.raises(InputError, match="threads is 0"):
        Execution(threads=0)
    with pytest.raises(InputError, match="float16"):
        Execution(dtype="float16")  # type: ignore[arg-type]


def test_a_cpu_runs_in_float32() -> None:
    resolved = Execution(device="cpu").resolve()
    assert resolved.dtype == "float32"
    assert resolved.threads == torch.get_num_threads()
    with resolved.autocast():
        assert not torch.is_autocast_enabled("cpu")
    with Execution(device="cpu", dtype="bfloat16").resolve().autocast():
        assert torch.is_autocast_enabled("cpu")


def test_global_settings_are_put_back() -> None:
    before = (torch.get_num_threads(), torch.get_float32_matmul_precision())
    with Execution(device="cpu", dtype="tf32", threads=1).resolve().applied():
        assert torch.get_num_threads() == 1
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_peak_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windtunnel.execution._sweep", lambda _: (64, 128))
    resolved = Execution(device="cpu", threads=1).resolve()
    peak = measured_peak(resolved, tmp_path)
    assert 1e8 < peak < 1e14
    assert measured_peak(resolved, tmp_path) == peak
    (tmp_path / "peaks.json").write_text("{")
    assert measured_peak(resolved, tmp_path) > 1e8


@pytest.mark.parametrize(("text", "bound"), [("1073741824\n", 2.0**30), ("max\n", None), ("", None), ("0", None)])
def test_a_container_is_taken_at_its_limit(tmp_path, text, bound):
    whole = host_memory(())
    (tmp_path / "memory.max").write_text(text)
    assert whole is not None
    assert host_memory((tmp_path / "memory.max", tmp_path / "none")) == (bound or whole)
