"""Evaluation at the end of each horizon, and the scores by document or item that it leaves in the run folder."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from windtunnel.checkpoint import write_atomically
from windtunnel.errors import InputError
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import SOLVED, Scores, Workload, finite


class Horizons:
    """Held-out scores of a workload, and `documents.npz` with the keys `h0.5/nats`, `h1.0/bytes`, ..."""

    def __init__(self, workload: Workload, settings: TrainingSettings, folder: Path) -> None:
        self.workload, self._settings = workload, settings
        self._path = folder / "documents.npz"
        self._every = workload.probe_steps(settings)

    def evaluate(self, model: nn.Module) -> Scores | None:
        """Scores of the model as it is; None if any is not finite."""
        scores = self.workload.evaluate(model, self._settings)
        return scores if finite(scores) else None

    def imputed(self, loss: float) -> Scores:
        """What a diverged run is given: the same loss for everything that would have been scored."""
        return self.workload.imputed(loss, self._settings)

    def probed_at(self, step: int, horizon: float | None) -> bool:
        """Whether the model is scored on the way, after so many steps of the line that leads to the longest horizon."""
        return self._every > 0 and step % self._every == 0 and horizon in (None, 1.0)

    def store(self, horizon: float, scores: Scores) -> None:
        """Add a horizon to the file, or replace it."""
        arrays = {**self._stored(), **{f"h{horizon}/{name}": values for name, values in scores.arrays().items()}}

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, **arrays)

        write_atomically(self._path, write)

    def _stored(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        try:
            with np.load(self._path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self._path}: damaged: {error}") from error


def learning(probes: list[dict[str, Any]]) -> dict[str, Any]:
    """What the scores on the way came to: all of them, and the first step at which the task was solved."""
    if not probes:
        return {}
    solved = next((probe["step"] for probe in probes if probe["accuracy"] >= SOLVED), None)
    return {"probes": probes, "solved_at": solved}


def imputed_loss(initial: float | None, vocab: int) -> float:
    """The loss recorded for a diverged run: that of step 0, or of a uniform guess if even that was not finite."""
    return math.log(vocab) if initial is None else initial
