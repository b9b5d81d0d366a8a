"""Items of a task as a pure function of (task, settings, split, seed, index), and batches of them.

Training and held-out items are told apart by their content: a hash of the item decides to which of the two it belongs,
and one that belongs to the other is drawn again. So no item can be in both, whatever the seeds, however few there are.
"""

import hashlib
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from windtunnel.data.mixing import mix
from windtunnel.data.sampler import Batch
from windtunnel.data.tasks.base import UNSCORED, Draws, Flags, Ids, Items, Task
from windtunnel.errors import InputError

SplitName = Literal["train", "test"]
HELD_OUT = 4  # one item in so many is held out
_ATTEMPTS = 400
_FEWEST_DIFFERENT = 64


class TaskStream:
    """An endless stream of items in a fixed order; it reads like a `Sampler`."""

    def __init__(self, task: Task, split: SplitName, seed: int) -> None:
        self.task, self.split, self.seed = task, split, seed
        name = f"windtunnel task 1 {task.kind} {task.canonical()} {split} {seed}"
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")

    def items(self, indices: range) -> Items:
        """Items 0, 1, .. by their numbers, whatever others are asked for with them."""
        numbers = np.arange(indices.start, indices.stop, indices.step, dtype=np.uint64)
        tokens = np.zeros((len(numbers), self.task.span), dtype=np.int64)
        targets = np.full_like(tokens, UNSCORED)
        left = np.arange(len(numbers))
        for attempt in range(_ATTEMPTS):
            draws = Draws(self._key, numbers[left], attempt)
            drawn = self.task.draw(draws)
            good = draws.good & (is_held_out(drawn) == (self.split == "test"))
            tokens[left[good]], targets[left[good]] = drawn.tokens[good], drawn.targets[good]
            left = left[~good]
            if not len(left):
                return Items(tokens, targets)
        raise InputError(
            f"task {self.task.name} ({self.task.label()}): too few different items to hold some out; longer items or "
            "more symbols make more"
        )

    def read(self, sequences: range) -> Batch:
        """A batch of some items."""
        tokens, targets = self.items(sequences)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), None)

    def window(self, sequences: range) -> Ids:
        """Tokens and targets of some items side by side, for the hash of a run's data; b 2t."""
        return np.concatenate(self.items(sequences), 1)


def is_held_out(items: Items) -> Flags:
    """Whether each item belongs to the held-out ones; n."""
    content = np.concatenate(items, 1).astype(np.uint64)  # -1 wraps
    places = mix(np.arange(1, content.shape[1] + 1, dtype=np.uint64))
    digest: NDArray[np.uint64] = mix(mix(content + places).sum(1, dtype=np.uint64))
    belongs: Flags = digest % np.uint64(HELD_OUT) == 0
    return belongs


def held_out(task: Task, count: int, seed: int = 0) -> Items:
    """The held-out items of a task. Raises `InputError` where nearly all of them would be the same few."""
    found = TaskStream(task, "test", seed).items(range(count))
    different = len(np.unique(np.concatenate(found, 1), axis=0))
    if different < min(count // 2, _FEWEST_DIFFERENT):
        raise InputError(
            f"task {task.name} ({task.label()}): only {different} different ones among {count} held-out items; longer "
            "items or more symbols make more"
        )
    return found
