"""The induction head's task (Gu and Dao 2023, section 4.1.2; De et al. 2024, Griffin, section 6.2)."""

from typing import ClassVar

import numpy as np

from windtunnel.data.tasks.base import Draws, Items, Task, unscored


class Induction(Task):
    """Somewhere stands a special token; where it comes again, at the end, the symbol that followed it is due.

    Tokens 0 .. probes - 1 are special, each shown once and asked once, in random order; the others are noise. Griffin:
    vocab 16, length 256, one probe. More probes teach faster: one answer a sequence is little to learn from.
    """

    name: ClassVar[str] = "induction"
    title: ClassVar[str] = "induction head: what followed the special token"
    paper: ClassVar[str] = "Gu & Dao 2023, De et al. 2024"

    vocab: int = 16
    length: int = 256
    probes: int = 1

    def validate(self) -> None:
        self.at_least(probes=1)
        self.at_least(length=3 * self.probes, vocab=self.probes + 2)

    @property
    def ids(self) -> int:
        return self.vocab

    @property
    def span(self) -> int:
        return self.length

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - self.probes)

    def draw(self, draws: Draws) -> Items:
        probes, body = self.probes, self.length - self.probes
        tokens = draws.integers(probes, self.vocab, self.length)
        places = np.sort(draws.distinct(0, body - probes, probes), 1) + np.arange(probes)  # never side by side
        followers = np.take_along_axis(tokens, places + 1, 1)  # n p
        shown, asked = draws.distinct(0, probes, probes), draws.distinct(0, probes, probes)
        np.put_along_axis(tokens, places, shown, 1)
        tokens[:, body:] = asked
        targets = unscored(tokens.shape)
        targets[:, body:] = np.take_along_axis(followers, np.take_along_axis(np.argsort(shown, 1), asked, 1), 1)
        return Items(tokens, targets)

    def ladder(self) -> tuple[Task, ...]:
        return self.scaled("length", 0.5, 2, 4, 8, 16)
