"""The benchmarks of recurrences at sizes that take no time."""

import json

import pytest
import torch

from windtunnel.bench import hawk, scan
from windtunnel.kernels import scan_native


def test_scans_against_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "library", lambda: None)
    threads = torch.get_num_threads()
    result = json.loads(json.dumps(scan.run(2, 1, lambda words: None, batch=2, width=3, lengths=(5, 40))))
    assert torch.get_num_threads() == threads
    assert [each["label"] for each in result["lengths"]["40"]] == ["bytes", "torch"]
    table = scan.table(result)
    assert len(table.rows) == 4
    assert "2 x length x 3" in table.caption


def test_the_setting_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("1", None):
        monkeypatch.setenv(scan_native.SETTING, "1")
        if value is None:
            monkeypatch.delenv(scan_native.SETTING)
        with scan._setting("0"):
            assert scan.os.environ[scan_native.SETTING] == "0"
        assert scan.os.environ.get(scan_native.SETTING) == value


def test_hawk_and_its_rival_have_the_same_loss() -> None:
    shape = hawk.Shape(vocab=11, layers=2, width=16, recurrent_width=24, gate_blocks=2, length=9, batch=2)
    result = json.loads(json.dumps(hawk.run(2, 1, lambda words: None, shape)))
    ours, theirs = result["losses"].values()
    assert ours == pytest.approx(theirs, rel=1e-5)
    table = hawk.table(result)
    assert len(table.rows) == 2
    assert "9" in table.caption
