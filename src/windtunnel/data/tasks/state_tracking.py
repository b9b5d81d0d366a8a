"""State tracking: the product of a stream of group elements, after each (Merrill et al. 2024, arXiv 2404.08819)."""

import functools
import itertools
from typing import ClassVar, Literal

import numpy as np

from windtunnel.data.tasks.base import Draws, Ids, Items, Task

Group = Literal["parity", "s3", "a5", "s5"]
POINTS: dict[str, int] = {"parity": 2, "s3": 3, "a5": 5, "s5": 5}


class StateTracking(Task):
    """Elements x1 x2 x3 ..; after each one the product x1 x2 .. so far is due, x1 applied first.

    group: "parity" (two elements: bits and their sum modulo two), "s3" and "s5" (all permutations of 3 and 5), "a5"
    (the 60 even ones of 5). Elements are numbered in the order of `itertools.permutations`. What is held out is a
    stream as a whole; its beginnings may occur in training.
    """

    name: ClassVar[str] = "state_tracking"
    title: ClassVar[str] = "state tracking: the product of a stream of group elements"
    paper: ClassVar[str] = "Merrill et al. 2024"

    group: Group = "parity"
    length: int = 32

    def validate(self) -> None:
        self.at_least(length=2)

    @property
    def ids(self) -> int:
        return len(products(self.group))

    @property
    def span(self) -> int:
        return self.length

    @property
    def chance(self) -> float:
        return 1 / self.ids

    def draw(self, draws: Draws) -> Items:
        tokens = draws.integers(0, self.ids, self.length)
        table, targets = products(self.group), tokens.copy()
        for place in range(1, self.length):
            targets[:, place] = table[targets[:, place - 1], tokens[:, place]]
        return Items(tokens, targets)

    def ladder(self) -> tuple[Task, ...]:
        return self.scaled("length", 2, 4, 8)


@functools.lru_cache(maxsize=len(POINTS))
def products(group: Group) -> Ids:
    """The group's table: element `right` applied after element `left`; [n n]."""
    elements = [each for each in itertools.permutations(range(POINTS[group])) if group != "a5" or _even(each)]
    number = {element: index for index, element in enumerate(elements)}
    return np.array([[number[tuple(right[i] for i in left)] for right in elements] for left in elements])


def _even(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0
