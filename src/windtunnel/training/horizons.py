"""Evaluation at the end of each horizon, and the per-document losses that it leaves in the run folder."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from windtunnel.checkpoint import write_atomically
from windtunnel.errors import InputError
from windtunnel.evaluation.loss import DocumentLosses, Documents, constant_losses, evaluate_loss
from windtunnel.training.settings import TrainingSettings

_EVALUATION_TOKENS = 8192  # a batch; forward passes need little memory


class Horizons:
    """Held-out documents, and `documents.npz` with the keys `h0.5/nats`, `h1.0/bytes`, ..."""

    def __init__(self, split: Documents, token_bytes: Any, settings: TrainingSettings, folder: Path) -> None:
        self._split, self._token_bytes, self._settings = split, token_bytes, settings
        self._path = folder / "documents.npz"

    def evaluate(self, model: nn.Module) -> DocumentLosses | None:
        """Losses of the model as it is; None if any is not finite."""
        context = self._settings.context
        batch_size = max(1, _EVALUATION_TOKENS // context)
        losses = evaluate_loss(
            model, self._split, self._token_bytes, context, batch_size, self._settings.evaluation_tokens
        )
        return losses if np.isfinite(losses.nats).all() else None

    def imputed(self, loss: float) -> DocumentLosses:
        """What a diverged run is given: the same loss for every token of the documents that would have been scored."""
        return constant_losses(
            self._split, self._token_bytes, self._settings.context, self._settings.evaluation_tokens, loss
        )

    def store(self, horizon: float, losses: DocumentLosses) -> None:
        """Add a horizon to the file, or replace it."""
        arrays = {**self._stored(), **{f"h{horizon}/{name}": values for name, values in losses.arrays().items()}}

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


def imputed_loss(initial: float | None, vocab: int) -> float:
    """The loss recorded for a diverged run: that of step 0, or of a uniform guess if even that was not finite."""
    return math.log(vocab) if initial is None else initial
