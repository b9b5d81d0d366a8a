"""Killed anywhere in a run whose batches grow, whose data spikes and which goes back: the same bits in the end."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.poison import cure, poison
from tests.training.test_resuming import Killed, assert_same, kill
from windtunnel.data.shards import Dataset
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.selftest.order import after
from windtunnel.training.interruption import Interrupted
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.spikes import Spikes

ONE_THREAD = Execution(device="cpu", threads=1)
BAD = (range(160, 190), range(520, 560))  # read by steps of 4, and by steps of 8 of a branch and of the trunk
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings() -> TrainingSettings:
    """113 steps, of 4 sequences to step 34 and of 8 thereafter; a branch from 52 to 65."""
    return TrainingSettings(
        tokens=16 * 8 * 96,
        context=16,
        batch_size=8,
        ramp=((0.5, 0.3),),
        learning_rate=1e-2,
        seed=1,
        horizons=(0.5, 1.0),
        evaluation_tokens=200,
        spikes=Spikes(rewind=8, skip=20),
    )


@pytest.fixture(scope="module")
def spec() -> Any:
    from windtunnel import recipes

    return recipes.get("llama")(layers=1, width=16, heads=2, vocab=257, context=16)


@pytest.fixture(autouse=True)
def bad_data() -> Iterator[None]:
    poison(*BAD)
    yield
    cure()


@pytest.fixture(scope="module")
def uninterrupted(
    spec: Any, settings: TrainingSettings, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    poison(*BAD)
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = train(spec, settings, dataset, folder, ONE_THREAD, events=False)
    cure()
    assert len(result.rewinds) >= 2
    assert len({settings.batch_at(each["to"]) for each in result.rewinds}) == 2  # before and after the change of batch
    return folder


@pytest.mark.parametrize(
    ("step", "save_seconds"),
    [(2, 1e9), (20, 0.0), (34, 0.0), (44, 1e9), (58, 0.0), (75, 1e9), (95, 0.0), (110, 1e9), (140, 0.0)],
)
def test_killed_by_an_exception(
    step: int,
    save_seconds: float,
    spec: Any,
    settings: TrainingSettings,
    dataset: Dataset,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train(spec, settings, dataset, folder, ONE_THREAD, stop=after(step, kill), save_seconds=save_seconds)
    train(spec, settings, dataset, folder, ONE_THREAD, resume=True)
    assert_same(folder, uninterrupted)


@pytest.mark.parametrize("step", [11, 36, 60])
def test_palms_training_resumes_across_its_ramp(step: int, dataset: Dataset, tmp_path: Path) -> None:
    from windtunnel import recipes

    published = recipes.paper("palm")
    assert published is not None
    settings = TrainingSettings(tokens=16 * 4 * 50, context=16, batch_size=4, **published.settings)
    changes = {at for at in range(1, settings.steps) if settings.batch_at(at) != settings.batch_at(at - 1)}
    assert changes == {14, 31}
    spec = recipes.get("palm")(layers=1, width=16, heads=2, vocab=257, context=16)
    train(spec, settings, dataset, tmp_path / "whole", ONE_THREAD, events=False)
    with pytest.raises(Killed):
        train(spec, settings, dataset, tmp_path / "run", ONE_THREAD, stop=after(step, kill), save_seconds=0.0)
    train(spec, settings, dataset, tmp_path / "run", ONE_THREAD, resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")


SCRIPT = """
import json, sys
from tests.training.poison import poison
from windtunnel.data.shards import open_dataset
from windtunnel.execution import Execution
from windtunnel.spec import from_json
from windtunnel.training.run import train
import windtunnel.recipes.llama, windtunnel.training.settings
spec, settings = (from_json(json.loads(text)) for text in sys.argv[3:5])
poison(*(range(*bad) for bad in json.loads(sys.argv[5])))
train(spec, settings, open_dataset(sys.argv[1]), sys.argv[2], Execution(device="cpu", threads=1), resume=True,
      save_seconds=0.0, events=False)
"""


@pytest.mark.slow
def test_sigkill_at_odd_moments(
    spec: Any, settings: TrainingSettings, dataset: Dataset, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    bad = json.dumps([[part.start, part.stop] for part in BAD])
    arguments = [str(dataset.folder), str(folder), json.dumps(spec.to_json()), json.dumps(settings.to_json()), bad]
    metrics = folder / "metrics.jsonl"
    for number in range(30):
        size = metrics.stat().st_size if metrics.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT)
        while process.poll() is None and (metrics.stat().st_size if metrics.exists() else 0) == size:
            time.sleep(0.003)
        time.sleep(0.013 * (number % 11 + 1))
        process.kill()
        process.wait()
        if (folder / "result.json").exists():
            break
    train(spec, settings, dataset, folder, ONE_THREAD, resume=True)
    assert_same(folder, uninterrupted)


def test_a_skip_may_be_added_while_a_run_goes_on(
    spec: Any, settings: TrainingSettings, dataset: Dataset, tmp_path: Path
) -> None:
    """It goes back to a checkpoint from before the data, and ends like a run that was told from the start."""
    settings = settings.replace(horizons=(1.0,))
    told = settings.replace(skips=((40, 46),))
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(spec, settings, dataset, folder, ONE_THREAD, stop=after(45, lambda: True), events=False)
    train(spec, told, dataset, folder, ONE_THREAD, resume=True, events=False)
    train(spec, told, dataset, tmp_path / "told", ONE_THREAD, events=False)
    assert_same(folder, tmp_path / "told")
    stored = json.loads((folder / "run.json").read_text())
    assert stored["identity"]["settings"]["skips"] == [[40, 46]]
    assert stored["rewinds"] == json.loads((folder / "result.json").read_text())["rewinds"]


def test_a_skip_of_what_was_read_long_ago_is_refused(
    spec: Any, settings: TrainingSettings, dataset: Dataset, tmp_path: Path
) -> None:
    plain = settings.replace(spikes=None, horizons=(1.0,))
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(spec, plain, dataset, folder, ONE_THREAD, stop=after(45, lambda: True), save_seconds=0.0, events=False)
    before = sorted(path.name for path in (folder / "checkpoints").iterdir())
    with pytest.raises(InputError, match=r"no checkpoint is kept from before.*the first is step-43"):
        train(spec, plain.replace(skips=((10, 12),)), dataset, folder, ONE_THREAD, resume=True, events=False)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == before
    assert json.loads((folder / "run.json").read_text())["identity"]["settings"]["skips"] == []
    train(spec, plain.replace(skips=((43, 45),)), dataset, folder, ONE_THREAD, resume=True, events=False)
