"""What a synthetic task is: settings from which items are drawn, with the answers that are scored.

A task is a spec, so it has JSON, a fingerprint, and refuses impossible settings when it is made. An item's target
stands at the token after which the answer is due: a model is right if its prediction of the next token is the target.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windtunnel.data.mixing import Words, mix
from windtunnel.errors import InputError
from windtunnel.spec import Spec, fields

UNSCORED = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment
_SHIFT = np.uint64(11)  # leaves the upper 53 of 64 bits
_SORTED = 1024  # values up to which distinct ones come from sorting; beyond, rows with a repetition are refused

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Items(NamedTuple):
    """Questions, one a row: tokens and targets, [n t] each, with a target of -1 where nothing is scored."""

    tokens: Ids
    targets: Ids

    @property
    def answers(self) -> Flags:
        """Where an answer is scored; [n t]."""
        scored: Flags = self.targets != UNSCORED
        return scored


class Draws:
    """Random numbers for many items at once; each row is a function of (key, index, attempt) alone.

    Row i is a SplitMix64 stream seeded from the three. NumPy's own generators are not used: what they make of their
    bits may change from version to version, and one for each item is slow.
    """

    def __init__(self, key: int, indices: ArrayLike, attempt: int = 0) -> None:
        index = np.asarray(indices, dtype=np.uint64)
        attempts = np.full_like(index, attempt)
        self._seeds: Words = mix(mix(index * _GOLDEN + np.uint64(key)) + attempts * _GOLDEN)[:, None]  # n 1
        self._drawn = 0
        self.count = len(index)
        self.good: Flags = np.ones(self.count, dtype=bool)

    def refuse(self, rows: Flags) -> None:
        """Mark rows [n] that are no items of the task; they are drawn again."""
        self.good &= ~rows

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Numbers strictly between 0 and 1; [n count]."""
        steps = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64)
        self._drawn += count
        bits = mix(self._seeds + steps * _GOLDEN) >> _SHIFT
        numbers: NDArray[np.float64] = (bits.astype(np.float64) + 0.5) * 2.0**-53
        return numbers

    def integers(self, low: int, high: ArrayLike, count: int) -> Ids:
        """Whole numbers from low to below high, which may be one for each row [n 1]; [n count]."""
        found: Ids = (self.uniform(count) * (np.asarray(high) - low)).astype(np.int64) + low
        return found

    def distinct(self, low: int, high: int, count: int) -> Ids:
        """Different whole numbers from low to below high, in random order; [n count]."""
        if high - low <= _SORTED:
            return np.argsort(self.uniform(high - low), axis=1, kind="stable")[:, :count] + low
        found = self.integers(low, high, count)
        ordered = np.sort(found, axis=1)
        self.refuse((ordered[:, 1:] == ordered[:, :-1]).any(1))
        return found

    def weighted(self, weights: NDArray[np.float64], count: int) -> Ids:
        """Different places, drawn one after another in proportion to their weights [w] (Gumbel's top k); [n count]."""
        keys = np.log(weights) - np.log(-np.log(self.uniform(len(weights))))
        return np.argsort(-keys, axis=1, kind="stable")[:, :count]


class Task(Spec):
    """A synthetic task.

    name: as it is typed. title: a few words. paper: where it comes from.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]

    @property
    def ids(self) -> int:
        """How many token ids there are: the vocabulary of a model for this task."""
        raise NotImplementedError

    @property
    def span(self) -> int:
        """Tokens of the longest item, which is the context that a model needs."""
        raise NotImplementedError

    @property
    def chance(self) -> float:
        """Accuracy of guessing evenly among all tokens that can be an answer."""
        raise NotImplementedError

    @property
    def guess(self) -> float:
        """Accuracy of guessing among the answers that an item itself shows, without knowing which belongs where."""
        return self.chance

    def draw(self, draws: Draws) -> Items:
        """An item for each row, filled up to the span."""
        raise NotImplementedError

    def ladder(self) -> tuple["Task", ...]:
        """The same task, longer, shorter or harder: what a model trained on this one is tested on besides."""
        return ()

    def aspects(self, items: Items) -> Mapping[str, Ids]:
        """What tells one item of the task from another, such as a length [n]: scores are given for each value."""
        return {}

    def variants(self, **choices: list[Any]) -> tuple[Self, ...]:
        """Other tasks: one setting after another replaced by each of its choices, where that can hold."""
        found: list[Self] = []
        for name, values in choices.items():
            for value in values:
                try:
                    found.append(self.replace(**{name: value}))
                except InputError:
                    continue
        return tuple(task for task in found if task != self)

    def scaled(self, name: str, *factors: float) -> tuple[Self, ...]:
        """The task with multiples of one setting, where they can hold."""
        return self.variants(**{name: [round(getattr(self, name) * factor) for factor in factors]})

    def label(self, trained: "Task | None" = None) -> str:
        """The settings in words: those that differ from the task that was trained on, or else all."""
        told = (f"{n}={v}" for n, v in fields(self) if trained is None or v != getattr(trained, n))
        return ",".join(told) or "as trained"

    def at_least(self, **least: int) -> None:
        """Refuse settings below their least."""
        for name, value in least.items():
            given = getattr(self, name)
            self.require(given >= value, f"{name} is {given}; at least {value}")

    def even(self, *names: str) -> None:
        """Refuse odd settings."""
        for name in names:
            given = getattr(self, name)
            self.require(given % 2 == 0, f"{name} is {given}; it must be even")


def unscored(shape: tuple[int, int]) -> Ids:
    """Targets before any answer is put in."""
    return np.full(shape, UNSCORED, dtype=np.int64)
