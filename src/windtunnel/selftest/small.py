"""A small text of known words, and small runs and studies on it, for the self-tests that have to train."""

import random
from pathlib import Path
from typing import Any

from windtunnel.comparison.engine import run_study
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import Dataset, prepare
from windtunnel.execution import Execution
from windtunnel.training.settings import TrainingSettings

WORDS = ["the", "wind", "carries", "a", "model", "over", "tokens", "and", "every", "loss", "falls", "with", "seeds"]
SIZES: dict[str, Any] = {"tokens": 8 * 512, "seeds": 3, "evaluation_tokens": 2_048, "trials": 3, "blocks": 2}
ONE_THREAD = Execution(device="cpu", threads=1)


def text(lines: int = 2_000, seed: int = 0) -> str:
    """Lines of twelve words each."""
    draw = random.Random(seed)
    return "\n".join(" ".join(draw.choices(WORDS, k=12)) for _ in range(lines))


def written(folder: Path) -> Path:
    """The text as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "my.txt"
    path.write_text(text())
    return path


def dataset(folder: Path, context: int) -> Dataset:
    """The text as bytes; everything is kept in the folder."""
    return prepare(read_corpus([written(folder)]), "bytes", context, heldout_tokens=1_000, cache=folder / "cache")


def request(corpus: Path, out: Path, *arms: str, **changes: Any) -> StudyRequest:
    """A study of a few steps a run."""
    options = {"preset": "smoke", **SIZES, "data": (corpus,), "cache": corpus.parent / "cache", **changes}
    return StudyRequest(arms=arms, out=out, **options)


def small_study(folder: Path, *arms: str, **changes: Any) -> dict[str, Any]:
    """Results of a study in `folder`/study; one that is there already is gone on with."""
    out = folder / "study"
    return run_study(plan_study(request(written(folder), out, *arms, **changes)), out, workers=2)


def run_settings(**changes: Any) -> TrainingSettings:
    """A run of 40 steps with branches."""
    settings = TrainingSettings(
        tokens=2560,
        context=16,
        batch_size=4,
        learning_rate=3e-3,
        seed=1,
        horizons=(0.25, 0.5, 1.0),
        evaluation_tokens=200,
    )
    return settings.replace(**changes)
