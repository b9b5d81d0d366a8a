"""Multi-query associative recall (Arora et al. 2023, Zoology, arXiv 2312.04927, section 4)."""

from typing import ClassVar, Literal

import numpy as np

from windtunnel.data.tasks.base import Draws, Ids, Items, Task, unscored


class MQAR(Task):
    """`pairs` keys with their values, then every key once more: its value is due.

    Keys are drawn from [1, vocab / 2), values from [vocab / 2, vocab). After the pairs, which are shown `passes` times,
    come slots of two tokens; slot i = 1, 2, .. asks for a key with probability ~ power i^(power - 1): power 1 is
    uniform, 0.01 puts most questions first. Elsewhere stands 0, or with fill "random" any token but this item's keys
    (zoology's own filler may repeat them). The paper: vocab 8192; 4 pairs in 64 tokens, 8 in 128, 16 in 256,
    64 in 512.
    """

    name: ClassVar[str] = "mqar"
    title: ClassVar[str] = "multi-query associative recall"
    paper: ClassVar[str] = "Arora et al. 2023"

    vocab: int = 256
    length: int = 64
    pairs: int = 4
    power: float = 0.01
    fill: Literal["zero", "random"] = "zero"
    passes: int = 1

    def validate(self) -> None:
        self.at_least(vocab=4, length=4, pairs=1, passes=1)
        self.even("vocab", "length")
        self.require(self.power > 0, f"power is {self.power}; it must be above 0")
        most = self.vocab // 2 - 1
        self.require(self.pairs <= most, f"pairs is {self.pairs}; vocab={self.vocab} has keys for at most {most}")
        needed = 2 * self.pairs * (self.passes + 1)
        self.require(
            needed <= self.length, f"length is {self.length}; pairs={self.pairs} shown and asked take at least {needed}"
        )

    @property
    def ids(self) -> int:
        return self.vocab

    @property
    def span(self) -> int:
        return self.length

    @property
    def chance(self) -> float:
        return 2 / self.vocab

    @property
    def guess(self) -> float:
        return 1 / self.pairs

    def draw(self, draws: Draws) -> Items:
        keys = draws.distinct(1, self.vocab // 2, self.pairs)  # n k
        values = draws.distinct(self.vocab // 2, self.vocab, self.pairs)
        shown = 2 * self.pairs * self.passes
        tokens = self._filler(draws, keys)
        tokens[:, :shown] = np.tile(np.stack((keys, values), 2).reshape(len(keys), -1), self.passes)
        slots = np.arange(1, (self.length - shown) // 2 + 1, dtype=np.float64)
        asked = shown + 2 * draws.weighted(slots ** (self.power - 1), self.pairs)  # n k
        targets = unscored(tokens.shape)
        np.put_along_axis(tokens, asked, keys, 1)
        np.put_along_axis(targets, asked, values, 1)
        return Items(tokens, targets)

    def _filler(self, draws: Draws, keys: Ids) -> Ids:
        """What stands where nothing else does: a token's rank among those that are no keys, then the token; n t."""
        if self.fill == "zero":
            return np.zeros((draws.count, self.length), dtype=np.int64)
        free = np.ones((draws.count, self.vocab), dtype=bool)
        np.put_along_axis(free, keys, False, 1)
        others = np.argsort(~free, axis=1, kind="stable")
        ranks = draws.integers(0, self.vocab - self.pairs, self.length)
        return np.take_along_axis(others, ranks, 1)

    def ladder(self) -> tuple[Task, ...]:
        return (*self.scaled("pairs", 0.5, 2, 4), *self.scaled("length", 2, 4))
