"""Kill -9 at random moments, in the middle of saving too: nothing is lost, nothing torn, the same bits in the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_resuming import ONE_THREAD, assert_same
from windtunnel import recipes
from windtunnel.data.shards import Dataset
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("kills", "background"),
    [(3, True), pytest.param(50, True, marks=pytest.mark.slow), pytest.param(50, False, marks=pytest.mark.slow)],
)
def test_sigkill_at_random_moments(kills: int, background: bool, dataset: Dataset, tmp_path: Path) -> None:
    spec = recipes.get("llama")(layers=1, width=16, heads=2, vocab=257, context=16)
    settings = TrainingSettings(
        tokens=64 * (20 + 16 * kills),  # more steps than the children come to
        context=16,
        batch_size=4,
        learning_rate=3e-3,
        seed=1,
        horizons=(0.1, 0.5, 1.0),
        evaluation_tokens=200,
    )
    folder = tmp_path / "killed"
    texts = [json.dumps(part.to_json()) for part in (spec, settings)]
    command = [sys.executable, "-m", "tests.training.killing", str(dataset.folder), str(folder), *texts]
    done = subprocess.run(
        [*command, str(kills), str(background)], cwd=ROOT, stdout=subprocess.PIPE, check=True, env={**os.environ}
    )
    record = json.loads(done.stdout)
    assert len(record) == kills
    whole = [bool(each["whole"]) for each in record]
    assert whole[-1]
    assert whole.count(False) <= 1
    assert whole == sorted(whole)  # once there is one, there is always one
    if kills > 10:
        assert sum(each["writing"] for each in record) > kills / 10
    train(spec, settings, dataset, folder, ONE_THREAD, resume=True, events=False)
    train(spec, settings, dataset, tmp_path / "whole", ONE_THREAD, events=False)
    assert_same(folder, tmp_path / "whole")
