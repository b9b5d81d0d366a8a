"""Selective copying (Gu and Dao 2023, section 4.1.1; De et al. 2024, Griffin, section 6.2)."""

from typing import ClassVar

import numpy as np

from windtunnel.data.tasks.base import Draws, Items, Task, unscored


class SelectiveCopying(Task):
    """`items` symbols among noise in `length` tokens, then as many go tokens: the symbols are due in their order.

    Token 0 is noise, 1 .. symbols are data, symbols + 1 says go. Griffin: 16 symbols, length 1024, 16 items. (MAD draws
    its blanks so that the last symbol always stands beside the go token; here every place is as likely.)
    """

    name: ClassVar[str] = "selective_copying"
    title: ClassVar[str] = "selective copying: the symbols among noise, in order"
    paper: ClassVar[str] = "Gu & Dao 2023, De et al. 2024"

    symbols: int = 16
    length: int = 64
    items: int = 8

    def validate(self) -> None:
        self.at_least(symbols=2, items=1)
        self.require(
            self.items <= self.length, f"items is {self.items}; length={self.length} has room for {self.length}"
        )

    @property
    def ids(self) -> int:
        return self.symbols + 2

    @property
    def span(self) -> int:
        return self.length + self.items

    @property
    def chance(self) -> float:
        return 1 / self.symbols

    def draw(self, draws: Draws) -> Items:
        tokens = np.zeros((draws.count, self.span), dtype=np.int64)
        data = draws.integers(1, self.symbols + 1, self.items)  # n i
        np.put_along_axis(tokens, np.sort(draws.distinct(0, self.length, self.items), 1), data, 1)
        tokens[:, self.length :] = self.symbols + 1
        targets = unscored(tokens.shape)
        targets[:, self.length :] = data
        return Items(tokens, targets)

    def ladder(self) -> tuple[Task, ...]:
        return (*self.scaled("items", 0.5, 2), *self.scaled("length", 0.5, 2, 4))
