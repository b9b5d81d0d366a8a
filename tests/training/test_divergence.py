"""A run that does not learn any more stops, and is given its initial loss (protocol 6.5)."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from windtunnel.data.shards import Dataset
from windtunnel.execution import Execution
from windtunnel.training.loop import Step, Trainer
from windtunnel.training.run import train
from windtunnel.training.watch import Watch

ONE_THREAD = Execution(device="cpu", threads=1)


def test_watch_counts_what_is_not_finite() -> None:
    watch = Watch()
    for step, (loss, norm) in enumerate([(6.0, 1.0), (math.nan, 1.0), (5.0, math.inf)], 1):
        watch.observe(step, loss, norm)
    assert not watch.judge()
    assert watch.nonfinite == 2
    watch.observe(4, math.inf, math.nan)
    assert watch.nonfinite == 3
    assert watch.judge()


def test_watch_judges_a_window_not_a_spike() -> None:
    watch = Watch()
    watch.observe(1, 6.0, 1.0)
    for step, loss in enumerate([5.0, 90.0, 5.0, *[5.0] * 12], 2):
        watch.observe(step, loss, 1.0)
    assert not watch.judge()
    for step in range(17, 33):
        watch.observe(step, 11.1, 1.0)
    assert watch.judge()


def test_watch_survives_json() -> None:
    watch = Watch()
    watch.observe(1, 6.0, 1.0)
    watch.observe(2, math.nan, 1.0)
    assert Watch(**json.loads(json.dumps(watch.to_json(), allow_nan=False))) == watch


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From step 18 on, losses are not a number."""
    advance = Trainer.advance

    def poison(self: Trainer, step: int, horizon: float | None) -> Step:
        done = advance(self, step, horizon)
        return done._replace(loss=done.loss * (torch.nan if step >= 18 else 1))

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", poison)
        yield


def test_a_diverged_run_records_its_initial_loss(
    poisoned: None, dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path
) -> None:
    settings = make_settings(horizons=(0.25, 0.5, 1.0), evaluation_tokens=100)
    result = train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, events=False)
    assert result.diverged
    assert result.nonfinite_steps == 2 + 14  # two in the branch to 20, then the trunk's from 18 to the judgement at 32
    *reached, missed = result.horizons.values()
    assert [horizon["imputed"] for horizon in reached] == [False, False]
    assert all(horizon["loss"] < result.initial_loss for horizon in reached)
    assert missed["imputed"]
    assert missed["checkpoint"] is None
    assert missed["loss"] == pytest.approx(result.initial_loss)
    with np.load(tmp_path / "run" / "documents.npz") as stored:
        assert stored["h1.0/tokens"].sum() == 100
        assert stored["h1.0/nats"].sum() == pytest.approx(100 * result.initial_loss)
    assert '"loss": null' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_rate_far_too_high_ends_in_numbers(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path
) -> None:
    settings = make_settings(learning_rate=1e6, warmup=0.0, evaluation_tokens=100)
    result = train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, events=False)
    assert result.diverged
    assert result.loss == pytest.approx(result.initial_loss)
    assert math.isfinite(result.horizons["1.0"]["bits_per_byte"])
