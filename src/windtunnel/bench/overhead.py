"""What the training loop costs beside the mathematics: sampling, logging, bookkeeping."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from windtunnel.bench.contestants import settings
from windtunnel.bench.shape import Shape
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import prepare
from windtunnel.execution import Execution
from windtunnel.training.loop import Trainer
from windtunnel.training.run import train


def loop_overhead(shape: Shape, steps: int, threads: int) -> dict[str, float]:
    """Shares of a real run's training time, on the embedded corpus, with progress shown and rows logged.

    sampling: waiting for the batch. logging: everything outside of `Trainer.advance`, from rows to progress.
    """
    dataset = prepare(read_corpus(None), shape.vocab, shape.context)
    spent: dict[str, list[float]] = {"advance": []}
    with tempfile.TemporaryDirectory() as folder:
        timed_advance = mock.patch.object(Trainer, "advance", _timed(Trainer.advance, spent["advance"]))
        with timed_advance:
            result = train(
                shape.spec(),
                settings(shape, steps * shape.step_tokens),
                dataset,
                Path(folder) / "run",
                execution=Execution(device="cpu", threads=threads),
                progress=lambda progress: None,
                save_seconds=1e9,
            )
    step = statistics.median(spent["advance"])
    sampling = result.data_seconds / steps / step
    logging = max(0.0, result.seconds - sum(spent["advance"])) / steps / step
    return {"sampling": sampling, "logging": logging, "share": sampling + logging, "step_seconds": step}


def _timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def call(*positional: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*positional, **named)
        finally:
            seconds.append(time.perf_counter() - began)

    return call
