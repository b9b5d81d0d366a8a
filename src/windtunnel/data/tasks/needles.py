"""Several needles in noise, some of them asked for (after Ye et al. 2024, section 3.3), for small models."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from windtunnel.data.tasks.base import Draws, Ids, Items, Task, unscored

DIGITS = 10
SETTINGS = ((1, 1), (2, 2), (4, 2), (6, 2))  # needles and asked, as published
_PARTS = 5  # of a text, by which depth is told


class Needles(Task):
    """Keys, each with a number of `digits` digits, at random places of noise; then `asked` of the keys: their numbers.

    The text has `length` tokens, in places of one key and its number. Tokens: `noise` of noise, `keys` keys, 10 digits.
    Published settings of (needles, asked): (1, 1), (2, 2), (4, 2), (6, 2).
    """

    name: ClassVar[str] = "needles"
    title: ClassVar[str] = "several needles in noise"
    paper: ClassVar[str] = "Ye et al. 2024"

    length: int = 128
    needles: int = 6
    asked: int = 2
    keys: int = 32
    noise: int = 16
    digits: int = 1

    def validate(self) -> None:
        self.at_least(needles=1, asked=1, noise=1, digits=1)
        self.require(self.asked <= self.needles, f"asked is {self.asked}; at most needles={self.needles} is allowed")
        self.require(self.needles <= self.keys, f"needles is {self.needles}; at most keys={self.keys} is allowed")
        needed = self.needles * self._place
        self.require(self.length >= needed, f"length is {self.length}; needles={self.needles} take at least {needed}")

    @property
    def _place(self) -> int:
        return 1 + self.digits

    @property
    def _text(self) -> int:
        return self.length // self._place * self._place

    @property
    def ids(self) -> int:
        return self.noise + self.keys + DIGITS

    @property
    def span(self) -> int:
        return self._text + self.asked * self._place - 1

    @property
    def chance(self) -> float:
        return 1 / DIGITS

    @property
    def guess(self) -> float:
        return 1 / self.needles + (1 - 1 / self.needles) / DIGITS

    def draw(self, draws: Draws) -> Items:
        count, first_digit = draws.count, self.noise + self.keys
        text = draws.integers(0, self.noise, self._text).reshape(count, -1, self._place)  # n places 1+digits
        where = draws.distinct(0, text.shape[1], self.needles)
        keys = draws.distinct(self.noise, first_digit, self.needles)
        numbers = draws.integers(first_digit, self.ids, self.needles * self.digits).reshape(count, self.needles, -1)
        facts = np.concatenate((keys[:, :, None], numbers), 2)  # n needles 1+digits
        np.put_along_axis(text, where[:, :, None], facts, 1)
        question = facts[:, : self.asked].reshape(count, -1)
        whole = np.concatenate((text.reshape(count, -1), question), 1)
        targets = unscored((count, self.span))
        due = np.arange(self._text, self.span)
        due = due[(due - self._text) % self._place < self.digits]
        targets[:, due] = whole[:, due + 1]
        return Items(whole[:, :-1], targets)

    def aspects(self, items: Items) -> Mapping[str, Ids]:
        """The fifth of the text in which the first needle asked for stands, from 0."""
        asked = items.tokens[:, self._text][:, None]
        place = np.argmax(items.tokens[:, : self._text : self._place] == asked, 1)
        return {"depth": place * _PARTS * self._place // self._text}

    def ladder(self) -> tuple[Task, ...]:
        able = [
            (count, asked) for count, asked in SETTINGS if count <= self.keys and count * self._place <= self.length
        ]
        settings = [self.replace(needles=count, asked=asked) for count, asked in able]
        return (*(task for task in settings if task != self), *self.scaled("length", 2, 4))
