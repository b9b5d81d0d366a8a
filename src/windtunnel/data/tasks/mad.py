"""Tasks of the MAD suite (Poli et al. 2024, arXiv 2403.17844, section 3.1): noisy and fuzzy recall, memorisation."""

from typing import ClassVar

import numpy as np

from windtunnel.data.tasks.base import UNSCORED, Draws, Flags, Ids, Items, Task, unscored

NOISE_IDS = 16
MOTIF = 3  # the longest key or value of fuzzy recall, and the length of a key that is asked for


class NoisyRecall(Task):
    """Keys with their values, again and again, among noise: where a key has been seen before, its value is due.

    Each two tokens are a key of [0, vocab / 2) with its value of [vocab / 2, vocab), or with probability `noise` two of
    16 noise tokens. Values belong to their keys within an item alone.
    """

    name: ClassVar[str] = "noisy_recall"
    title: ClassVar[str] = "recall among noise"
    paper: ClassVar[str] = "Poli et al. 2024 (MAD)"

    vocab: int = 32
    length: int = 128
    noise: float = 0.2

    def validate(self) -> None:
        self.at_least(vocab=4, length=8)
        self.even("vocab", "length")
        self.require(0 <= self.noise < 1, f"noise is {self.noise}; a share from 0 to below 1")

    @property
    def ids(self) -> int:
        return self.vocab + NOISE_IDS

    @property
    def span(self) -> int:
        return self.length

    @property
    def chance(self) -> float:
        return 2 / self.vocab

    def draw(self, draws: Draws) -> Items:
        half, units = self.vocab // 2, self.length // 2
        values = draws.integers(half, self.vocab, half)
        keys = draws.integers(0, half, units)  # n u
        quiet = draws.uniform(units) >= self.noise
        asked = quiet & _seen(keys, quiet)
        draws.refuse(~np.any(asked, 1))
        due = np.take_along_axis(values, keys, 1)
        noise = draws.integers(self.vocab, self.ids, 2 * units).reshape(-1, units, 2)
        tokens = np.where(quiet[:, :, None], np.stack((keys, due), 2), noise)
        targets = np.stack((np.where(asked, due, UNSCORED), np.full_like(due, UNSCORED)), 2)
        return Items(tokens.reshape(draws.count, -1), targets.reshape(draws.count, -1))

    def ladder(self) -> tuple[Task, ...]:
        return (*self.variants(noise=[0.4, 0.8]), *self.scaled("length", 2, 4))


class FuzzyRecall(Task):
    """Recall where keys and values are motifs of one to three tokens; a key of three is asked for when it comes again.

    Tokens of [0, vocab / 2) make keys, the others values, so that motifs end where the halves change. Each of `pairs`
    keys has its value within an item; pairs are repeated until `length` is full. Scored are the value's tokens.
    """

    name: ClassVar[str] = "fuzzy_recall"
    title: ClassVar[str] = "recall of motifs"
    paper: ClassVar[str] = "Poli et al. 2024 (MAD)"

    vocab: int = 16
    length: int = 128
    pairs: int = 8

    def validate(self) -> None:
        self.at_least(vocab=4, pairs=1, length=4 * MOTIF)
        self.even("vocab")
        most = self.vocab // 2  # so many one-token motifs there are: more pairs would hardly ever have different keys
        self.require(self.pairs <= most, f"pairs is {self.pairs}; vocab={self.vocab} allows at most {most}")

    @property
    def ids(self) -> int:
        return self.vocab + 1

    @property
    def span(self) -> int:
        return self.length

    @property
    def chance(self) -> float:
        return 2 / self.vocab

    def draw(self, draws: Draws) -> Items:
        half, units = self.vocab // 2, self.length // 2
        sizes = draws.integers(1, MOTIF + 1, 2 * self.pairs).reshape(-1, self.pairs, 2)  # n p 2: key, value
        letters = draws.integers(0, half, 2 * self.pairs * MOTIF).reshape(-1, self.pairs, 2, MOTIF)
        within = np.arange(MOTIF) < sizes[..., None]
        self._refuse_equal_keys(np.where(within, letters, -1)[:, :, 0], draws)
        order = draws.integers(0, self.pairs, units)  # n u
        asked = _seen(order, np.ones_like(order, dtype=bool))
        motifs = letters + np.array([0, half])[:, None]
        unit = order[:, :, None, None]
        motifs, within = np.take_along_axis(motifs, unit, 1), np.take_along_axis(within, unit, 1)  # n u 2 3
        asked &= within[:, :, 0].all(2)
        due = np.where(asked[:, :, None], motifs[:, :, 1], UNSCORED)
        return self._laid_out(motifs, within, due, draws)

    def _laid_out(self, motifs: Ids, within: Flags, due: Ids, draws: Draws) -> Items:
        """Units one after another, as far as they fit whole; a value's token is due at the token before it."""
        count = draws.count
        flat = within.reshape(count, -1)
        place = (np.cumsum(flat, 1) - 1).reshape(within.shape)
        end = np.cumsum(within.sum((2, 3)), 1)[:, :, None, None]
        kept = within & (end <= self.length)
        rows = np.broadcast_to(np.arange(count)[:, None, None, None], kept.shape)
        tokens = np.full((count, self.length), self.vocab)
        tokens[rows[kept], place[kept]] = motifs[kept]
        targets = unscored(tokens.shape)
        answered = kept[:, :, 1]
        targets[rows[:, :, 1][answered], place[:, :, 1][answered] - 1] = due[answered]
        draws.refuse(~(targets != UNSCORED).any(1))
        return Items(tokens, targets)

    @staticmethod
    def _refuse_equal_keys(keys: Ids, draws: Draws) -> None:
        same = (keys[:, :, None] == keys[:, None]).all(3).sum((1, 2))
        draws.refuse(same > keys.shape[1])

    def ladder(self) -> tuple[Task, ...]:
        return self.scaled("length", 2, 4)


class Memorisation(Task):
    """Keys whose values are the same in all data and never shown: `k ? k ? ...`, at each ? the value of k is due.

    The map from keys [0, vocab / 2) to values [vocab / 2, vocab) is drawn once, from `book`. Held-out items ask for the
    same facts in another order: there is nothing else to learn.
    """

    name: ClassVar[str] = "memorisation"
    title: ClassVar[str] = "facts kept in the weights"
    paper: ClassVar[str] = "Poli et al. 2024 (MAD)"

    vocab: int = 256
    length: int = 32
    book: int = 0

    def validate(self) -> None:
        self.at_least(vocab=4, length=2, book=0)
        self.even("vocab", "length")
        self.require(
            self.length <= self.vocab, f"length is {self.length}; vocab={self.vocab} has keys for at most {self.vocab}"
        )

    @property
    def ids(self) -> int:
        return self.vocab + 1

    @property
    def span(self) -> int:
        return self.length

    @property
    def chance(self) -> float:
        return 2 / self.vocab

    def draw(self, draws: Draws) -> Items:
        half = self.vocab // 2
        values = Draws(self.book, [0]).integers(half, self.vocab, half)[0]
        keys = draws.distinct(0, half, self.length // 2)
        tokens = np.stack((keys, np.full_like(keys, self.vocab)), 2).reshape(draws.count, -1)
        targets = np.stack((np.full_like(keys, UNSCORED), values[keys]), 2).reshape(draws.count, -1)
        return Items(tokens, targets)


def _seen(values: Ids, counted: Flags) -> Flags:
    """Whether a value stands earlier in its row, at a counted place; [n u]."""
    equal = values[:, :, None] == values[:, None]
    earlier: Flags = np.tril(equal & counted[:, None], -1).any(2)
    return earlier
