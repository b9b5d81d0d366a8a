"""Accuracy on a task's held-out items: by answer, by whole item, by length and difficulty.

Answers are scored with the right ones before them in the input. An item counts as right where all its answers are,
which is the same as decoding them greedily one by one.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from windtunnel.data.tasks import Items, Task, held_out
from windtunnel.errors import InputError
from windtunnel.evaluation.reach import longest_input
from windtunnel.root import Model

AS_TRAINED = "as trained"
_BATCH_TOKENS = 8192
_LADDER_TOKENS = 1 << 17  # of one rung, if that leaves _FEWEST to _MOST items
_FEWEST, _MOST = 100, 500
_VALUES = 12  # of an aspect that are listed one by one; more are put together by doublings


class ItemScores(NamedTuple):
    """For each item: nats of its answers, how many answers, how many of them right; [n] float64."""

    nats: NDArray[np.float64]
    answers: NDArray[np.float64]
    correct: NDArray[np.float64]

    @property
    def loss(self) -> float:
        """Mean nats an answer."""
        return float(self.nats.sum() / self.answers.sum())

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.correct.sum() / self.answers.sum())

    @property
    def whole(self) -> float:
        """Share of items whose answers are all right."""
        return float((self.correct == self.answers).mean())

    def only(self, rows: NDArray[np.bool_]) -> "ItemScores":
        """Some of the items."""
        return ItemScores(*(values[rows] for values in self))

    def figures(self) -> dict[str, Any]:
        """What is reported of them."""
        whole = int((self.correct == self.answers).sum())
        figures = {"loss": self.loss, "accuracy": self.accuracy, "whole": self.whole}
        return figures | {"items": len(self.nats), "whole_items": whole, "answers": int(self.answers.sum())}


class Rung(NamedTuple):
    """The task as trained, or one rung of its ladder: what is other, its longest item, its chance, its scores."""

    label: str
    task: Task
    scores: ItemScores

    def figures(self) -> dict[str, Any]:
        """What is reported of it."""
        told = {"label": self.label, "span": self.task.span, "chance": self.task.chance, "guess": self.task.guess}
        return told | self.scores.figures()


@dataclass(frozen=True)
class TaskScores:
    """Scores on the task as trained, then on its ladder; `beyond` names the rungs that the model cannot address."""

    rungs: tuple[Rung, ...]
    items: Items
    beyond: tuple[str, ...] = ()

    @property
    def trained(self) -> ItemScores:
        """Scores on the task as it was trained."""
        return self.rungs[0].scores

    @property
    def loss(self) -> float:
        """Mean nats an answer, on the task as trained."""
        return self.trained.loss

    def figures(self) -> dict[str, Any]:
        """Everything that a run's result says of them."""
        first, *others = [rung.figures() for rung in self.rungs]
        aspects = self.rungs[0].task.aspects(self.items)
        return {
            **{name: value for name, value in first.items() if name not in ("label", "span")},
            "rungs": [first, *others],
            "aspects": {name: self._by_value(values) for name, values in aspects.items()},
            "beyond": list(self.beyond),
        }

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """The scores of the items as trained, by name."""
        return self.trained._asdict()

    def _by_value(self, values: NDArray[np.int64]) -> list[dict[str, Any]]:
        several = len(np.unique(values)) > _VALUES
        groups = np.where(values > 0, 1 << np.log2(np.maximum(values, 1)).astype(np.int64), 0) if several else values
        return [
            {"from": int(values[groups == group].min()), "to": int(values[groups == group].max())}
            | self.trained.only(groups == group).figures()
            for group in np.unique(groups)
        ]


def evaluate_task(model: nn.Module, task: Task, items: int, ladder: bool = True) -> TaskScores:
    """Score a model on `items` held-out items of a task and, with `ladder`, on what is longer or harder."""
    steps, beyond = _steps(model, task) if ladder else ((), ())
    rungs = [Rung(AS_TRAINED, task, score_items(model, kept_items(task, items)))]
    for step in steps:
        held = kept_items(step, rung_items(step, items))
        rungs.append(Rung(step.label(task), step, score_items(model, held)))
    return TaskScores(tuple(rungs), kept_items(task, items), beyond)


def constant_scores(task: Task, items: int, loss: float) -> TaskScores:
    """What a model is given that does not work: the same loss for every answer, and chance."""
    held = kept_items(task, items)
    answers = held.answers.sum(1).astype(np.float64)
    return TaskScores((Rung(AS_TRAINED, task, ItemScores(loss * answers, answers, task.chance * answers)),), held)


@torch.no_grad()
def score_items(model: nn.Module, items: Items) -> ItemScores:
    """Score items in float32, whatever the training precision; logits are formed where there are answers alone."""
    device = next(model.parameters()).device
    training = model.training
    nats, correct = np.zeros(items.tokens.shape), np.zeros(items.tokens.shape)
    model.eval()
    try:
        for rows in _batches(items):
            tokens, targets = (torch.from_numpy(part[rows]).to(device) for part in items)
            asked = targets >= 0
            with torch.autocast(device.type, enabled=False):
                hidden = model.encode(tokens, None, model.context_of(tokens)).hidden  # type: ignore[operator]
                logits = model.head(hidden[asked], model.embedding.weight).float()  # type: ignore[operator, union-attr]
            places = items.answers[rows]
            loss = nn.functional.cross_entropy(logits, targets[asked], reduction="none")
            nats[rows][places] = loss.cpu().double().numpy()
            correct[rows][places] = (logits.argmax(-1) == targets[asked]).cpu().numpy()
    finally:
        model.train(training)
    return ItemScores(nats.sum(1), items.answers.sum(1).astype(np.float64), correct.sum(1))


def addressable(spec: Model, task: Task) -> str:
    """Why a model cannot be asked an item of a task; empty if it can."""
    if spec.vocab < task.ids:
        return f"vocab is {spec.vocab}, the task has {task.ids} tokens"
    limit = longest_input(spec)
    return f"its positions end at {limit}, an item has {task.span} tokens" if limit and task.span > limit else ""


def rung_items(task: Task, items: int) -> int:
    """How many items a rung of a ladder is tested on."""
    return min(items, max(_FEWEST, min(_MOST, _LADDER_TOKENS // task.span)))


@functools.lru_cache(maxsize=32)
def kept_items(task: Task, count: int) -> Items:
    """Held-out items, drawn once a process."""
    return held_out(task, count)


def _steps(model: nn.Module, task: Task) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """The rungs that the model can be asked, and the names of the others."""
    spec: Any = model.spec
    able: list[Task] = []
    beyond: list[str] = []
    for step in task.ladder():
        try:
            kept_items(step, rung_items(step, _MOST))
        except InputError:  # too few different items: a string of two symbols, say
            continue
        if addressable(spec, step):
            beyond.append(step.label(task))
        else:
            able.append(step)
    return tuple(able), tuple(beyond)


def _batches(items: Items) -> Iterator[slice]:
    size = max(1, _BATCH_TOKENS // items.tokens.shape[1])
    for first in range(0, len(items.tokens), size):
        yield slice(first, first + size)
