"""A small corpus of bytes, and models small enough to train in a second."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from windtunnel import recipes
from windtunnel.data.corpus import Corpus, read_corpus
from windtunnel.data.shards import Dataset, prepare
from windtunnel.execution import Execution
from windtunnel.training.settings import TrainingSettings

EXECUTION = Execution(device="cpu", threads=1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    words = ["the", "wind", "blows", "over", "a", "wing", "and", "lifts", "it", "—", "until", "stall"]
    for index in range(24):
        text = " ".join(draw.choice(words) for _ in range(draw.randint(40, 200)))
        (folder / f"{index:02d}.txt").write_text(text, encoding="utf-8")
    return read_corpus([folder])


@pytest.fixture(scope="session")
def dataset(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(corpus, "bytes", context=16, heldout_tokens=400, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def make_settings() -> Callable[..., TrainingSettings]:
    """Settings of 40 steps of 4 x 16 tokens, with changes."""

    def make(**changes: Any) -> TrainingSettings:
        common: dict[str, Any] = {"tokens": 2560, "context": 16, "batch_size": 4, "learning_rate": 3e-3, "seed": 1}
        return TrainingSettings(**{**common, **changes})

    return make


@pytest.fixture
def make_spec() -> Callable[..., Any]:
    """A recipe at its smallest useful size."""

    def make(name: str = "llama", **changes: Any) -> Any:
        sizes: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "vocab": 257, "context": 16}
        return recipes.get(name)(**{**sizes, **changes})

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's model."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
