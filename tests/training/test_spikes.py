"""Loss spikes: told from noise, gone back from, passed over; made here by bad data and by a rate far too high."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import weights
from tests.training.poison import cure, poison
from windtunnel.data.shards import Dataset
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.training.loop import Step, Trainer
from windtunnel.training.run import train
from windtunnel.training.spikes import Detector, Spikes, is_milestone, milestone

ONE_THREAD = Execution(device="cpu", threads=1)
FAST: dict[str, Any] = {"tokens": 16 * 8 * 96, "batch_size": 8, "learning_rate": 1e-2, "evaluation_tokens": 200}


def _ordinary(seed: int, steps: int) -> list[tuple[float, float]]:
    """A falling loss with noise, and gradient norms with a long tail."""
    draw = np.random.default_rng(seed)
    losses = 2 + 6 * np.exp(-np.arange(steps) / 60) + draw.normal(0, 0.1, steps)
    return list(zip(losses.tolist(), np.exp(draw.normal(0, 0.3, steps)).tolist(), strict=True))


def _onset(rows: list[tuple[float, float]], spikes: Spikes | None = None) -> int | None:
    detector = Detector()
    for step, (loss, norm) in enumerate(rows, 1):
        detector.observe(spikes or Spikes(), step, loss, norm)
    return detector.onset


@pytest.mark.parametrize("seed", range(8))
def test_noise_is_no_spike(seed: int) -> None:
    assert _onset(_ordinary(seed, 3000)) is None


@pytest.mark.parametrize(
    ("spoilt", "onset"),
    [
        ({200: (9.0, 1.0)}, None),  # one bad batch
        ({200: (9.0, 1.0), 201: (9.0, 1.0), 205: (9.0, 1.0)}, 201),
        ({200: (9.0, 1.0), 210: (9.0, 1.0), 220: (9.0, 1.0)}, None),  # too far apart
        ({200: (2.0, 900.0), 201: (2.0, 900.0), 202: (2.0, 900.0)}, 201),  # the norm alone
        ({200: (0.1, 1e-4), 201: (0.1, 1e-4), 202: (0.1, 1e-4)}, None),  # downwards
        ({200: (math.nan, 1.0)}, 201),
        ({200: (2.0, math.inf)}, 201),
        ({198: (9.0, 1.0), 200: (math.nan, math.nan)}, 199),
        ({40: (14.0, 1.0), 41: (14.0, 1.0), 42: (14.0, 1.0)}, 41),  # while the loss falls fast
        ({1: (math.nan, 1.0)}, 2),
    ],
)
def test_what_a_spike_is(spoilt: dict[int, tuple[float, float]], onset: int | None) -> None:
    rows = _ordinary(0, 400)
    for index, row in spoilt.items():
        rows[index] = row
    assert _onset(rows) == onset


def test_a_detector_survives_json_in_the_middle_of_a_spike() -> None:
    rows = [*_ordinary(1, 100), (9.0, 1.0), (9.0, 1.0)]
    detector = Detector()
    for step, row in enumerate(rows, 1):
        detector.observe(Spikes(), step, *row)
    again = Detector(**json.loads(json.dumps(detector.to_json(), allow_nan=False)))
    again.observe(Spikes(), 103, 9.0, 1.0)
    assert again.onset == 101


def test_where_a_run_goes_back_to() -> None:
    spikes = Spikes()
    assert [spikes.rewind_steps(steps) for steps in (50, 400, 5000)] == [8, 20, 100]  # PaLM's 100 from 2000 steps on
    assert [spikes.skip_steps(steps) for steps in (50, 5000)] == [24, 300]  # PaLM: 200 to 500
    assert [milestone(0, onset, 100) for onset in (1, 100, 101, 201, 350)] == [0, 0, 0, 100, 200]
    assert milestone(230, 350, 100) == 230
    for onset in range(1, 400):
        assert is_milestone(37, milestone(37, onset, 30), 30)


@pytest.mark.parametrize("changes", [{"threshold": 0}, {"history": 8}, {"confirm": 9}, {"tries": 0}, {"rewind": 0}])
def test_impossible_watches_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        Spikes(**changes)


@pytest.fixture
def bad_data() -> Iterator[None]:
    """Noise in what steps 64 to 67 would read."""
    poison(range(512, 552))
    yield
    cure()


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_bad_data_is_passed_over(
    bad_data: None, dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path
) -> None:
    """The run that went back ends with the very weights of one that was told beforehand what to pass over."""
    settings = make_settings(**FAST, spikes=Spikes(rewind=8, skip=20))
    result = train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, events=False)
    assert result.rewinds == [{"spike": 65, "judged": 77, "to": 56, "horizon": None, "sequences": [448, 448 + 21 * 8]}]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["rewinds"] == result.rewinds
    rows = _rows(tmp_path / "run")
    back = next(index for index, row in enumerate(rows) if "rewind" in row)
    assert [row["step"] for row in rows[back - 1 : back + 2]] == [77, 56, 57]
    assert max(row["loss"] for row in rows[back - 13 : back]) > 5
    assert max(row["loss"] for row in rows[back + 1 : -1]) < 2
    told = make_settings(**FAST, skips=((56, 77),))
    beforehand = train(make_spec(), told, dataset, tmp_path / "told", ONE_THREAD, events=False)
    assert beforehand.skipped_steps == 21
    assert beforehand.loss == result.loss
    one, other = (weights(tmp_path / name / "checkpoints" / "step-96") for name in ("run", "told"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    blind = train(make_spec(), make_settings(**FAST), dataset, tmp_path / "blind", ONE_THREAD, events=False)
    assert blind.rewinds == []
    assert blind.loss != result.loss


def _too_fast(monkeypatch: pytest.MonkeyPatch, first_time_only: bool) -> None:
    """From step 40 to 43 the learning rate is 300 times too high."""
    advance = Trainer.advance

    def faster(self: Trainer, step: int, horizon: float | None) -> Step:
        ordinary = self.settings
        if 40 <= step < 44 and not (first_time_only and self.skips):
            self.settings = ordinary.replace(learning_rate=300 * ordinary.learning_rate)
        try:
            return advance(self, step, horizon)
        finally:
            self.settings = ordinary

    monkeypatch.setattr(Trainer, "advance", faster)


def test_a_run_recovers_from_a_rate_far_too_high(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _too_fast(monkeypatch, first_time_only=True)
    settings = make_settings(**FAST, spikes=Spikes(rewind=8))
    result = train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, events=False)
    assert [(each["spike"], each["to"]) for each in result.rewinds] == [(42, 32)]
    assert result.loss < 1.2
    lost = train(make_spec(), make_settings(**FAST), dataset, tmp_path / "lost", ONE_THREAD, events=False)
    assert lost.loss > result.loss + 0.3


def test_tries_are_bounded(
    dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _too_fast(monkeypatch, first_time_only=False)
    settings = make_settings(**FAST, spikes=Spikes(rewind=8, tries=2))
    result = train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, events=False)
    assert len(result.rewinds) == 2
    assert result.rewinds[0]["sequences"][1] == result.rewinds[1]["sequences"][0]  # the second skip follows the first
    assert result.horizons["1.0"]["steps"] == 96


def test_a_branch_goes_back_within_itself(dataset: Dataset, make_spec: Any, make_settings: Any, tmp_path: Path) -> None:
    """What a cooldown passes over, the trunk reads."""
    settings = make_settings(**FAST, spikes=Spikes(rewind=8), horizons=(0.75, 1.0), cooldown=0.4)  # leaves at 43
    poison(range(480, 520))
    try:
        result = train(make_spec(), settings, dataset, tmp_path / "run", ONE_THREAD, events=False)
    finally:
        cure()
    inside, outside = result.rewinds
    assert (inside["horizon"], inside["to"]) == (0.75, 48)
    assert outside["horizon"] is None or outside["horizon"] == 1.0
    assert inside["spike"] == outside["spike"] == 61
    assert max(row["loss"] for row in _rows(tmp_path / "run")[-20:-1]) < 2
