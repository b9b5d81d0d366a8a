"""Rows on disk, TensorBoard events, and the figures of the progress line."""

import errno
import json
import logging
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from windtunnel.data.shards import Dataset
from windtunnel.errors import InputError, WorkError
from windtunnel.execution import Execution
from windtunnel.training import logs
from windtunnel.training.logs import EventLog, MetricsLog
from windtunnel.training.progress import Progress, duration, figures, progress_line
from windtunnel.training.run import train

ONE_THREAD = Execution(device="cpu", threads=1)


def test_rows_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.append({"step": 1, "loss": 2.0})
    length = log.settle()
    log.append({"step": 2, "loss": float("inf")})
    log.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [2.0, None]
    log = MetricsLog(path, length)
    log.append({"step": 2, "loss": 1.0})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0},
    ]
    with pytest.raises(InputError, match=r"metrics\.jsonl: holds .* it was cut or replaced"):
        MetricsLog(path, 10_000)


def _events(folder: Path) -> list[Any]:
    """TensorBoard's records: length (8 bytes), its checksum (4), a protocol buffer, its checksum (4)."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event

    found = []
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_events_hold_every_scalar(tmp_path: Path) -> None:
    log = EventLog(tmp_path, 0)
    log.append({"step": 1, "horizon": None, "loss": 2.5, "lr": 0.1, "grad_norm": 3.0})
    log.append({"step": 2, "horizon": 1.0, "evaluation_loss": 2.25, "bits_per_byte": 1.5})
    log.close()
    (row,) = [event for event in _events(tmp_path / "trunk") if event.HasField("summary")]
    assert row.step == 1
    assert {value.tag: value.simple_value for value in row.summary.value} == pytest.approx(
        {"loss": 2.5, "lr": 0.1, "grad_norm": 3.0}
    )
    assert [event.step for event in _events(tmp_path / "horizon-1.0") if event.HasField("summary")] == [2]


def test_a_disk_that_is_too_full_for_events_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = EventLog(tmp_path, 0)
    log.append({"step": 1, "horizon": None, "loss": 2.5})
    monkeypatch.setattr(EventFileWriter, "add_event", full)
    with pytest.raises(WorkError, match=r"cannot write: .*No space left on device; the last checkpoint is kept"):
        log.append({"step": 2, "horizon": None, "loss": 2.5})
    log.close()


def test_without_tensorboard_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(logs, "_told", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            log = EventLog(tmp_path / "events", 0)
            log.append({"step": 1, "horizon": None, "loss": 2.5})
            log.close()
    assert len(caplog.records) == 1
    assert "tensorboard is not installed" in caplog.text
    assert not (tmp_path / "events").exists()


def test_progress_of_a_run(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("windtunnel.training.run.measured_peak", lambda *_: 1e12)
    monkeypatch.setattr("windtunnel.training.session._REPORT_SECONDS", 0.0)
    seen: list[Progress] = []
    settings = make_settings(horizons=(0.5, 1.0), evaluation_tokens=64)
    train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, progress=seen.append, events=False)
    assert [progress.tokens for progress in seen] == [64 * step for step in range(1, 45)]
    assert {progress.total for progress in seen} == {64 * 44}
    assert {progress.horizon for progress in seen} == {None, 0.5, 1.0}
    last = seen[-1]
    assert last.tokens_per_second > 0
    assert last.seconds_left == 0
    assert last.utilisation is not None
    assert 0 < last.utilisation < 1


def test_a_run_shorter_than_the_time_between_reports_tells_its_end(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("windtunnel.training.session._REPORT_SECONDS", float("inf"))
    seen: list[Progress] = []
    settings = make_settings(horizons=(0.5, 1.0), evaluation_tokens=64)
    train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, progress=seen.append, events=False)
    assert [(progress.tokens, progress.total) for progress in seen] == [(64 * 44, 64 * 44)]


def test_figures_read_well() -> None:
    progress = Progress(500, 1000, 3.14159, 12345.6, 0.411, 200.0, None)
    assert figures(progress) == "50 % · loss 3.142 · 12,346 tokens/s · MFU 41 % · 3 min 20 s left"
    assert [duration(seconds) for seconds in (0.4, 59.6, 3599, 7500)] == [
        "0 s",
        "1 min 00 s",
        "59 min 59 s",
        "2 h 05 min",
    ]


def test_the_line_is_drawn_only_where_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_line("palm") as report:
        assert report is None
    with progress_line("palm", shown=True) as report:
        assert report is not None
        report(Progress(500, 1000, 3.0, 10.0, None, 5.0, None))
    assert "palm" in capfd.readouterr().err
