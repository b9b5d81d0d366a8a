"""A text of bytes in memory, runs of tiny untrained models on disk, and a harness that measures without files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import windtunnel as wt
from windtunnel import recipes
from windtunnel.checkpoint import model_tensors, save, write_json
from windtunnel.data.shard import Split
from windtunnel.data.tokenizers import ByteTokenizer
from windtunnel.evaluation.base import Evaluation
from windtunnel.evaluation.subject import Subject, Text
from windtunnel.evaluation.work import Meter, Work
from windtunnel.runs import find

END = 256
CONTEXT = 16


def text_of(parts: list[bytes], name: str = "a text", training: Any = None) -> Text:
    """Documents of bytes, each after an end_of_text."""
    rows = [np.array([END, *part], np.uint16) for part in parts]
    offsets = np.cumsum([0, *map(len, rows)])
    names = [str(index) for index in range(len(parts))]
    sizes = np.array([len(part) for part in parts])
    split = Split(np.concatenate(rows), offsets, sizes, names, [None] * len(parts), END)
    return Text(name, "f" * 8, split, ByteTokenizer(), training)


def run_folder(folder: Path, model: Any, context: int = CONTEXT, seed: int = 0, **record: Any) -> Path:
    """A finished run with these weights."""
    spec = model.spec
    folder.mkdir(parents=True)
    settings = {"seed": seed, "context": context}
    identity = {"settings": settings, "spec": {"fingerprint": spec.fingerprint()}}
    write_json(folder / "run.json", {"identity": identity, **record})
    write_json(folder / "spec.json", spec.to_json())
    save(folder / "checkpoints" / "step-1", {"model": model_tensors(model)}, {"final": True, "horizon": {}})
    ByteTokenizer().save(folder / "tokenizer")
    return folder


def tiny(name: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A recipe at its smallest, with weights large enough that its predictions differ."""
    sizes: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "vocab": 257, "context": CONTEXT}
    model = wt.build(recipes.get(name)(**{**sizes, **changes}), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.dim() > 1 else None
    return model


@pytest.fixture
def draw() -> Callable[..., list[bytes]]:
    """Texts of given lengths over a few letters, so that pairs come again."""

    def make(*sizes: int, letters: int = 6) -> list[bytes]:
        numbers = np.random.default_rng(0)
        return [numbers.integers(97, 97 + letters, size).astype(np.uint8).tobytes() for size in sizes]

    return make


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The figures of one evaluation for one model and text."""

    def measure(evaluation: Evaluation, model: Any, text: Text, **options: Any) -> dict[str, Any]:
        count = len(list(tmp_path.iterdir()))
        folder = run_folder(tmp_path / f"run{count}", model, **options)
        subject = Subject("it", find(folder), torch.device("cpu"), (), text)
        evaluation.check(subject)
        meter = Meter(evaluation.tokens(subject), None)
        figures = evaluation.measure(subject.load(), subject, Work(tmp_path / f"kept{count}.json", {}, meter))
        return {**figures, **evaluation.derived(figures)}

    return measure


def token_nats(model: Any, ids: list[int]) -> list[float]:
    """Nats of ids[1:], each by a full pass over what is before it, in float64."""
    double = model.spec.build().double()
    double.load_state_dict(model.state_dict())
    found = []
    for place in range(1, len(ids)):
        with torch.no_grad():
            logits = double(torch.tensor([ids[:place]])).logits[0, -1]
        found.append(float(torch.logsumexp(logits, 0) - logits[ids[place]]))
    return found
