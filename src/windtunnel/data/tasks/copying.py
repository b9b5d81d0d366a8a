"""Copying and look-up by an n-gram (Jelassi et al. 2024, Repeat After Me, arXiv 2402.01032, sections 3 and 4)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from windtunnel.data.tasks.base import UNSCORED, Draws, Ids, Items, Task, unscored


class Copying(Task):
    """`$ s | s .`: the string s again, and the stop after it.

    Its length is drawn from `shortest` to `longest`; shorter items are filled up. Tokens: the symbols, then $ | . and
    the filling. The paper: 26 symbols.
    """

    name: ClassVar[str] = "copying"
    title: ClassVar[str] = "copying a string"
    paper: ClassVar[str] = "Jelassi et al. 2024"

    symbols: int = 26
    shortest: int = 2
    longest: int = 16

    def validate(self) -> None:
        self.at_least(symbols=2, shortest=1)
        self.require(
            self.shortest <= self.longest, f"shortest is {self.shortest}; at most longest={self.longest} is allowed"
        )

    @property
    def ids(self) -> int:
        return self.symbols + 4

    @property
    def span(self) -> int:
        return 2 * self.longest + 2

    @property
    def chance(self) -> float:
        return 1 / (self.symbols + 1)

    def draw(self, draws: Draws) -> Items:
        start, bar, stop, filling = range(self.symbols, self.symbols + 4)
        length = draws.integers(self.shortest, self.longest + 1, 1)  # n 1
        text = draws.integers(0, self.symbols, self.longest)
        place = np.arange(self.span) - 1  # of the first s; the second is length + 1 later
        again = place - length - 1
        first = np.take_along_axis(text, np.broadcast_to(place, again.shape).clip(0, self.longest - 1), 1)
        second = np.take_along_axis(text, again.clip(0, self.longest - 1), 1)
        tokens = np.select(
            (place < 0, place < length, place == length, again < length), (start, first, bar, second), filling
        )
        due = (again >= -1) & (again < length)
        following = np.take_along_axis(text, (again + 1).clip(0, self.longest - 1), 1)
        return Items(tokens, np.where(due, np.where(again + 1 == length, stop, following), UNSCORED))

    def aspects(self, items: Items) -> Mapping[str, Ids]:
        return {"length": items.answers.sum(1) - 1}

    def label(self, trained: Task | None = None) -> str:
        alike = trained is not None and self == trained.replace(shortest=self.longest, longest=self.longest)
        return f"longest={self.longest}" if alike and self != trained else super().label(trained)

    def ladder(self) -> tuple[Task, ...]:
        lengths = [max(1, round(self.longest * factor)) for factor in (0.5, 1, 2, 4)]
        return tuple(self.replace(shortest=length, longest=length) for length in lengths)


class Lookup(Task):
    """`$ s | g a`, or `$ g | s | a` where the key comes first: g is an n-gram that stands once in s, a what follows it.

    key "last" must store s before it knows what is asked; "first" can be matched on the fly. Tokens: the symbols, then
    $ and |.
    """

    name: ClassVar[str] = "lookup"
    title: ClassVar[str] = "what follows an n-gram of a string"
    paper: ClassVar[str] = "Jelassi et al. 2024"

    symbols: int = 26
    length: int = 32
    gram: int = 2
    answer: int = 2
    key: Literal["last", "first"] = "last"

    def validate(self) -> None:
        self.at_least(symbols=2, gram=1, answer=1)
        self.at_least(length=self.gram + self.answer)
        there, kinds = self.length - self.gram + 1, self.symbols**self.gram
        self.require(
            there <= kinds,
            f"gram is {self.gram}: {there} of them in a string, of only {kinds}: hardly one would be once",
        )

    @property
    def ids(self) -> int:
        return self.symbols + 2

    @property
    def span(self) -> int:
        return self.length + self.gram + self.answer + (2 if self.key == "first" else 1)

    @property
    def chance(self) -> float:
        return 1 / self.symbols

    def draw(self, draws: Draws) -> Items:
        text = draws.integers(0, self.symbols, self.length)  # n l
        place = self._place(text, draws)[:, None] + np.arange(self.gram + self.answer)
        gram, answer = np.split(np.take_along_axis(text, place, 1), [self.gram], 1)
        start, bar = (np.full((draws.count, 1), self.symbols + extra) for extra in (0, 1))
        parts = (start, gram, bar, text, bar) if self.key == "first" else (start, text, bar, gram)
        tokens = np.concatenate((*parts, answer[:, :-1]), 1)
        targets = unscored(tokens.shape)
        targets[:, -self.answer :] = answer
        return Items(tokens, targets)

    def _place(self, text: Ids, draws: Draws) -> Ids:
        """Where an n-gram begins that stands once in its string, with enough after it; any of them is as likely; n."""
        codes = sliding_window_view(text, self.gram, axis=1) @ self.symbols ** np.arange(self.gram)  # n w
        once = (codes[:, :, None] == codes[:, None]).sum(2) == 1
        once[:, self.length - self.gram - self.answer + 1 :] = False
        draws.refuse(~once.any(1))
        place: Ids = np.argmax(np.where(once, draws.uniform(codes.shape[1]), -1.0), 1)
        return place

    def ladder(self) -> tuple[Task, ...]:
        return self.scaled("length", 0.5, 2, 4)
