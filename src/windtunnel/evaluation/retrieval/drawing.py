"""Keys and values: made-up names and numbers, drawn from (task, split, seed, index) alone.

Names of training and of test items are told apart by a hash of the name, so that no item of one split can hold a key of
the other, whatever the seeds.
"""

import hashlib
from typing import Literal

from windtunnel.data.tasks.base import Draws

SplitName = Literal["train", "test"]
DIGITS = 7
HELD_OUT = 4  # one name in so many belongs to the test items
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_SYLLABLES = tuple(consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS)
_NAME = 3  # syllables
NAMES = len(_SYLLABLES) ** _NAME


class Drawing:
    """The random choices of one item."""

    def __init__(self, task: str, split: SplitName, seed: int, index: int) -> None:
        name = f"windtunnel retrieval 1 {task} {split} {seed}"
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        self._draws = Draws(key, [index])
        self._split = split
        self._used: set[str] = set()

    def share(self) -> float:
        """A number between 0 and 1."""
        return float(self._draws.uniform(1)[0, 0])

    def below(self, high: int) -> int:
        """A whole number from 0 to below `high`."""
        return int(self._draws.integers(0, high, 1)[0, 0])

    def order(self, count: int) -> list[int]:
        """0 .. count - 1 in random order."""
        return [int(place) for place in self._draws.distinct(0, count, count)[0]]

    def name(self) -> str:
        """A name of this split, such as `Balomi`, that this item does not have yet."""
        while True:
            syllables = self._draws.integers(0, len(_SYLLABLES), _NAME)[0]
            name = "".join(_SYLLABLES[int(place)] for place in syllables).capitalize()
            if name not in self._used and split_of(name) == self._split:
                self._used.add(name)
                return name

    def number(self, digits: int = DIGITS) -> str:
        """So many digits, the first of them not 0, that this item does not have yet."""
        while True:
            number = str(10 ** (digits - 1) + self.below(9 * 10 ** (digits - 1)))
            if number not in self._used:
                self._used.add(number)
                return number


def split_of(name: str) -> SplitName:
    """Which items may hold a name."""
    return "test" if hashlib.sha256(name.encode()).digest()[0] % HELD_OUT == 0 else "train"
