"""A phone book (Jelassi et al. 2024, section 5; De et al. 2024, Griffin, section 6.2), in the form for small models."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from windtunnel.data.tasks.base import Draws, Ids, Items, Task, unscored

LETTERS, DIGITS = 20, 10
NAME, NUMBER = 3, 4  # letters, digits
COLON, SEMICOLON, QUESTION, FILLING = range(LETTERS + DIGITS, LETTERS + DIGITS + 4)
ENTRY = NAME + NUMBER + 2
_NAMES = LETTERS**NAME
_MOST = 128  # entries: with more, hardly a book would have different names alone


class Phonebook(Task):
    """`abc:1234;def:5678;...?def:`: the number of one of the names, all of which differ.

    The book has from `fewest` to `entries` entries; shorter ones are filled up. Tokens: 20 letters, 10 digits, : ; ?
    and the filling.
    """

    name: ClassVar[str] = "phonebook"
    title: ClassVar[str] = "a number out of a phone book"
    paper: ClassVar[str] = "Jelassi et al. 2024, De et al. 2024"

    entries: int = 8
    fewest: int = 2

    def validate(self) -> None:
        self.at_least(fewest=1)
        self.require(self.fewest <= self.entries, f"fewest is {self.fewest}; at most entries={self.entries} is allowed")
        self.require(self.entries <= _MOST, f"entries is {self.entries}; at most {_MOST}")

    @property
    def ids(self) -> int:
        return FILLING + 1

    @property
    def span(self) -> int:
        return ENTRY * self.entries + NAME + NUMBER + 1

    @property
    def chance(self) -> float:
        return 1 / DIGITS

    def draw(self, draws: Draws) -> Items:
        count = draws.integers(self.fewest, self.entries + 1, 1)  # n 1
        codes = draws.distinct(0, _NAMES, self.entries)
        names = codes[:, :, None] // LETTERS ** np.arange(NAME) % LETTERS  # n e 3
        numbers = LETTERS + draws.integers(0, DIGITS, self.entries * NUMBER).reshape(-1, self.entries, NUMBER)
        asked = draws.integers(0, count, 1)[:, :, None]
        name, number = (np.take_along_axis(part, asked, 1)[:, 0] for part in (names, numbers))
        colons, semicolons = (np.full((*codes.shape, 1), mark) for mark in (COLON, SEMICOLON))
        book = np.concatenate((names, colons, numbers, semicolons), 2).reshape(draws.count, -1)
        question = np.concatenate((np.full_like(count, QUESTION), name, colons[:, 0], number[:, :-1]), 1)
        tokens = np.full((draws.count, self.span), FILLING)
        tokens[:, : book.shape[1]] = np.where(np.arange(book.shape[1]) < ENTRY * count, book, FILLING)
        after = ENTRY * count + np.arange(question.shape[1])
        np.put_along_axis(tokens, after, question, 1)
        targets = unscored(tokens.shape)
        np.put_along_axis(targets, after[:, -NUMBER:], number, 1)
        return Items(tokens, targets)

    def aspects(self, items: Items) -> Mapping[str, Ids]:
        """How many entries there are, and how many of them stand between the name's own and the question."""
        question = np.argmax(items.tokens == QUESTION, 1)[:, None]
        name = np.take_along_axis(items.tokens, question + 1 + np.arange(NAME), 1)  # n 3
        starts = ENTRY * np.arange(self.entries)[:, None] + np.arange(NAME)
        place = np.argmax((items.tokens[:, starts] == name[:, None]).all(2), 1)
        entries = question[:, 0] // ENTRY
        return {"entries": entries, "distance": entries - 1 - place}

    def label(self, trained: Task | None = None) -> str:
        alike = trained is not None and self == trained.replace(entries=self.entries, fewest=self.entries)
        return f"entries={self.entries}" if alike and self != trained else super().label(trained)

    def ladder(self) -> tuple[Task, ...]:
        sizes = [max(1, round(self.entries * factor)) for factor in (0.5, 1, 2, 4)]
        return tuple(self.replace(entries=size, fewest=size) for size in sizes if size <= _MOST)
