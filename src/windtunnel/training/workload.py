"""What a model is trained on and scored by, as a value: a corpus of text, or a synthetic task.

Everything else about a run is the same for both. A workload is named by plain data (`address`), from which another
process makes it again.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from windtunnel.data.mixture import make_sampler
from windtunnel.data.sampler import Batch, Batches
from windtunnel.data.shards import Dataset, open_dataset
from windtunnel.data.tasks import Task, TaskStream
from windtunnel.errors import InputError
from windtunnel.evaluation.accuracy import (
    TaskScores,
    addressable,
    constant_scores,
    evaluate_task,
    kept_items,
    score_items,
)
from windtunnel.evaluation.loss import DocumentLosses, constant_losses, evaluate_loss, losses_by_set
from windtunnel.root import Model
from windtunnel.spec import from_json
from windtunnel.training.settings import TrainingSettings

ITEMS = 2000
SOLVED = 0.99
_EVALUATION_TOKENS = 8192  # a batch; forward passes need little memory
_PROBES, _PROBE_ITEMS = 40, 256

Scores: TypeAlias = DocumentLosses | TaskScores


class Order(Protocol):
    """Sequences 0, 1, .. of training data in a fixed order."""

    def read(self, sequences: range) -> Batch:
        """A batch of some of them."""
        ...

    def window(self, sequences: range) -> NDArray[Any]:
        """Everything in them that training sees, for the hash of a run's data; one row each."""
        ...


class Workload(ABC):
    """What a model is trained on and scored by."""

    @property
    @abstractmethod
    def vocab(self) -> int:
        """Token ids that a model must know."""

    @property
    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Figures and hashes for `run.json` and `study.json`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """The hash of the text or of the task, which `record` holds too."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a resumed run must agree in, besides the hash of its batches."""

    @abstractmethod
    def address(self) -> dict[str, Any]:
        """Plain data that `open_workload` reads."""

    @abstractmethod
    def check(self, spec: Model, settings: TrainingSettings) -> None:
        """Refuse a model or settings that do not fit."""

    @abstractmethod
    def order(self, settings: TrainingSettings) -> Order:
        """The training data of a run."""

    @abstractmethod
    def evaluate(self, model: nn.Module, settings: TrainingSettings) -> Scores:
        """Held-out scores of a model as it is."""

    @abstractmethod
    def imputed(self, loss: float, settings: TrainingSettings) -> Scores:
        """What a diverged run is given: the same loss everywhere."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Put beside a run what its model needs to be used."""

    def by_set(self, scores: Scores) -> dict[str, Any]:
        """The scores of each set of the held-out text, as the entry `sets`; nothing where there is only one."""
        return {}

    def probe_steps(self, settings: TrainingSettings) -> int:
        """Every how many steps of the longest horizon a run is scored on the way; 0: never."""
        return 0

    def probe(self, model: nn.Module) -> dict[str, float]:
        """A score on the way, of a few held-out items."""
        return {}

    def for_tuning(self) -> "Workload":
        """The same without what no choice of a learning rate looks at."""
        return self


@dataclass(frozen=True)
class Text(Workload):
    """A corpus as token shards."""

    dataset: Dataset

    @property
    def vocab(self) -> int:
        return self.dataset.tokenizer.vocab

    @property
    def record(self) -> dict[str, Any]:
        return self.dataset.record

    @property
    def fingerprint(self) -> str:
        return str(self.dataset.record["fingerprint"])

    @property
    def identity(self) -> dict[str, Any]:
        return {"tokenizer": self.dataset.tokenizer.fingerprint}

    def address(self) -> dict[str, Any]:
        return {"folder": str(self.dataset.folder.absolute())}

    def check(self, spec: Model, settings: TrainingSettings) -> None:
        if spec.vocab < self.vocab:
            raise InputError(
                f"vocab is {spec.vocab}, but the tokenizer has {self.vocab} tokens; build the model with "
                f"vocab={self.vocab}"
            )
        if settings.context > spec.context:
            raise InputError(f"context is {settings.context}, but the model is meant for at most {spec.context}")

    def order(self, settings: TrainingSettings) -> Batches:
        return make_sampler(self.dataset.train, settings.context, settings.data_seed, settings.mixture)

    def evaluate(self, model: nn.Module, settings: TrainingSettings) -> DocumentLosses:
        batch_size = max(1, _EVALUATION_TOKENS // settings.context)
        held, sizes = self.dataset.heldout, self.dataset.tokenizer.token_bytes
        return evaluate_loss(model, held, sizes, settings.context, batch_size, settings.evaluation_tokens)

    def imputed(self, loss: float, settings: TrainingSettings) -> DocumentLosses:
        held, sizes = self.dataset.heldout, self.dataset.tokenizer.token_bytes
        return constant_losses(held, sizes, settings.context, settings.evaluation_tokens, loss)

    def by_set(self, scores: Scores) -> dict[str, Any]:
        assert isinstance(scores, DocumentLosses)
        sets = losses_by_set(scores, self.dataset.heldout.sets)
        return {"sets": sets} if len(sets) > 1 else {}

    def save(self, folder: Path) -> None:
        self.dataset.tokenizer.save(folder / "tokenizer")


@dataclass(frozen=True)
class Synthetic(Workload):
    """A synthetic task. items: held-out ones to score. ladder: whether longer and harder ones are scored too."""

    task: Task
    items: int = ITEMS
    ladder: bool = True

    def __post_init__(self) -> None:
        if self.items < 1:
            raise InputError(f"items: {self.items} given; at least 1")

    @property
    def vocab(self) -> int:
        return self.task.ids

    @cached_property
    def record(self) -> dict[str, Any]:
        """Draws the held-out items, so that a task of too few different ones is refused before any work."""
        kept_items(self.task, self.items)
        return {
            "name": f"{self.task.name} ({self.task.label()})",
            "source": f"{self.task.title}, {self.task.paper}",
            "task": self.task.to_json(),
            "fingerprint": self.fingerprint,
            "vocab": self.task.ids,
            "heldout_items": self.items,
            "chance": self.task.chance,
            "guess": self.task.guess,
        }

    @property
    def fingerprint(self) -> str:
        return self.task.fingerprint()

    @property
    def identity(self) -> dict[str, Any]:
        return {"task": self.task.to_json(), "items": self.items, "ladder": self.ladder}

    def address(self) -> dict[str, Any]:
        return self.identity

    def check(self, spec: Model, settings: TrainingSettings) -> None:
        reason = addressable(spec, self.task)
        if reason:
            raise InputError(
                f"task {self.task.name} ({self.task.label()}): {reason}; build a model that is made for it"
            )
        if settings.mixture:
            raise InputError(f"mixture: {self.task.name} is a task and has no sets; leave it out")
        if settings.context != self.task.span:
            raise InputError(
                f"context is {settings.context}, but an item of {self.task.name} has {self.task.span} tokens"
            )

    def save(self, folder: Path) -> None:
        """A task's tokens are numbers: there is no tokenizer to keep."""

    def order(self, settings: TrainingSettings) -> TaskStream:
        return TaskStream(self.task, "train", settings.data_seed)

    def evaluate(self, model: nn.Module, settings: TrainingSettings) -> TaskScores:
        return evaluate_task(model, self.task, self.items, self.ladder)

    def imputed(self, loss: float, settings: TrainingSettings) -> TaskScores:
        return constant_scores(self.task, self.items, loss)

    def probe_steps(self, settings: TrainingSettings) -> int:
        return max(1, settings.steps // _PROBES)

    def probe(self, model: nn.Module) -> dict[str, float]:
        scores = score_items(model, kept_items(self.task, min(_PROBE_ITEMS, self.items)))
        return {"accuracy": scores.accuracy, "whole": scores.whole}

    def for_tuning(self) -> Workload:
        return replace(self, ladder=False)


def workload_of(data: Dataset | Task | Workload) -> Workload:
    """What was handed over, as a workload."""
    if isinstance(data, Dataset):
        return Text(data)
    return Synthetic(data) if isinstance(data, Task) else data


def open_workload(address: dict[str, Any]) -> Workload:
    """The workload that `address` names; a corpus's shards are taken to have been checked."""
    if "folder" in address:
        return Text(open_dataset(Path(address["folder"]), verify=False))
    task = from_json(address["task"], path="task")
    if not isinstance(task, Task):
        raise InputError(f"task: a {task.kind} is none")
    return Synthetic(task, address["items"], address["ladder"])


def finite(scores: Scores) -> bool:
    """Whether every score is a number."""
    return all(bool(np.isfinite(values).all()) for values in scores.arrays().values())
