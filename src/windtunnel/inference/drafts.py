"""Where drafts come from: another model with the same vocabulary, or the text itself."""

from array import array
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from windtunnel.errors import InputError, WorkError
from windtunnel.inference.batch import FAR, Batch, limit_of
from windtunnel.inference.compiled import Say, tell
from windtunnel.inference.pace import step_share
from windtunnel.inference.sampling import Sampling, distribution, draw, likeliest, uniform
from windtunnel.root import ModelLayer


class Draft(NamedTuple):
    """Drafted tokens, and the distributions [n v] that they were drawn from (float64; none for greedy sampling)."""

    tokens: list[int]
    probabilities: Tensor


NOTHING = Draft([], torch.empty(0, 0, dtype=torch.float64))


class Wanted(NamedTuple):
    """A row that asks for a draft of some length: its text, its settings, and how many tokens it has made."""

    text: Sequence[int]
    sampling: Sampling
    generated: int
    length: int


class Drafter(Protocol):
    """Follows the rows of an engine's batch. cost: of drafting one token, in passes of the target, as estimated."""

    cost: float

    def propose(self, wanted: Sequence[Wanted]) -> list[Draft]:
        """Drafts for rows 0, 1, .., of at most the wanted lengths."""

    def clear(self, row: int) -> None:
        """A new text begins in this row."""

    def move(self, source: int, target: int) -> None:
        """A row's text goes on in another row."""


class PromptLookup:
    """Copies what followed the last `longest` .. 1 tokens where they last stood before (Saxena 2023); costs nothing.

    Each drafted token has all the probability of its distribution. vocab: of the target.
    """

    cost = 0.0

    def __init__(self, vocab: int, longest: int = 8) -> None:
        if longest < 1:
            raise InputError(f"longest: at least 1 token has to match, got {longest}")
        self.vocab, self.longest = vocab, longest

    def propose(self, wanted: Sequence[Wanted]) -> list[Draft]:
        return [self._certain(self._copied(list(each.text), each.length)) for each in wanted]

    def clear(self, row: int) -> None:
        """Nothing is remembered."""

    def move(self, source: int, target: int) -> None:
        """Nothing is remembered."""

    def _copied(self, text: list[int], count: int) -> list[int]:
        whole = array("i", text)
        data, wide = whole.tobytes(), whole.itemsize  # searched as bytes, which is many times as fast
        for size in range(min(self.longest, len(text) - 1), 0, -1):
            end = data[-size * wide :]
            at = data.rfind(end, 0, -wide)
            while at > 0 and at % wide:  # inside a token
                at = data.rfind(end, 0, at + len(end) - 1)
            if at >= 0:
                start = at // wide + size
                return text[start : start + count]
        return []

    def _certain(self, tokens: list[int]) -> Draft:
        probabilities = torch.zeros(len(tokens), self.vocab, dtype=torch.float64)
        probabilities[range(len(tokens)), tokens] = 1.0
        return Draft(tokens, probabilities)


class ModelDrafter:
    """A smaller model writes the drafts, under the same sampling settings as the target.

    capacity: tokens that a text may hold. longest: the longest draft that is asked for. vocab: tokens that may be
    drafted, the target's. Its cost is an estimate (`pace.py`). A text that is longer than the drafter
    can hold is read from its newer half on.
    """

    def __init__(
        self,
        model: ModelLayer,
        target: ModelLayer,
        rows: int,
        capacity: int,
        chunk: int,
        longest: int,
        vocab: int | None = None,
        compiled: bool = False,
        say: Say | None = None,
        cache: torch.dtype | None = None,
    ) -> None:
        if model.spec.vocab != target.spec.vocab:
            raise InputError(
                f"draft: has a vocabulary of {model.spec.vocab}, the model one of {target.spec.vocab}; they must share "
                "a tokenizer"
            )
        self.cost = step_share(model, target, compiled)
        self.vocab = vocab or target.spec.vocab
        self.limit = min(limit_of(model) or FAR, capacity + longest)
        self.longest = min(longest, self.limit // 2)
        self.batch = Batch(model, rows, self.limit, chunk, compiled, say, cache)
        self._fed: dict[int, list[int]] = {}
        self._begun: dict[int, int] = {}
        self._say, self._told = say, False

    def propose(self, wanted: Sequence[Wanted]) -> list[Draft]:
        """Rows are drafted together; each is first brought to where its text stands."""
        if not any(each.length for each in wanted):
            return [NOTHING] * len(wanted)  # to be brought there when a draft is wanted again
        for row, each in enumerate(wanted):
            self._catch_up(row, each)
        self.batch.mark(range(len(wanted)))
        steps = min(self.longest, max(each.length for each in wanted))
        drafted: list[list[int]] = [[] for _ in wanted]
        laws: list[list[Tensor]] = [[] for _ in wanted]
        for step in range(steps):
            tokens = [[found[-1] if found else each.text[-1]] for found, each in zip(drafted, wanted, strict=True)]
            logits = self.batch.feed(0, tokens)[:, -1, : self.vocab]
            for row, each in enumerate(wanted):
                self._fed.setdefault(row, []).append(tokens[row][0])
                if len(drafted[row]) == step < each.length:
                    self._draw(logits[row], each, drafted[row], laws[row])
        return [
            Draft(found, torch.stack(law) if law else NOTHING.probabilities)
            for found, law in zip(drafted, laws, strict=True)
        ]

    def clear(self, row: int) -> None:
        self.batch.clear(row)
        self._fed.pop(row, None)
        self._begun.pop(row, None)

    def move(self, source: int, target: int) -> None:
        self.batch.move(source, target)
        self._fed[target] = self._fed.pop(source, [])
        self._begun[target] = self._begun.pop(source, 0)

    def _draw(self, logits: Tensor, each: Wanted, drafted: list[int], laws: list[Tensor]) -> None:
        """Add a token to a draft, and the distribution that it is drawn from; where there is none the draft ends."""
        seen = [*each.text, *drafted]
        try:
            if each.sampling.greedy:
                drafted.append(likeliest(logits, each.sampling, seen))
                return
            (law,) = distribution(logits[None], each.sampling, seen)
        except WorkError as error:
            if not self._told:
                tell(f"draft: {error}; where it does not draft, decoding goes on without it", self._say)
            self._told = True
            return
        laws.append(law)
        drafted.append(draw(law, uniform(each.sampling.seed, each.generated + len(drafted), "draft")))

    def _catch_up(self, row: int, each: Wanted) -> None:
        """Every token but the last has been fed, and nothing that the target did not keep.

        There is room for the longest draft, whatever this row wants: all rows are fed as long as any of them.
        """
        if len(each.text) + self.longest - self._begun.get(row, 0) > self.limit:
            self.clear(row)
            self._begun[row] = len(each.text) - self.limit // 2
        text, fed = list(each.text[self._begun.get(row, 0) : -1]), self._fed.pop(row, [])
        start = self.batch.lengths[row] - len(fed)
        agreed = next((k for k, pair in enumerate(zip(fed, text[start:], strict=False)) if pair[0] != pair[1]), None)
        kept = min(len(fed), len(text) - start) if agreed is None else agreed
        self.batch.rewind(row, start + kept, text)
        if self.batch.lengths[row] < len(text):
            self.batch.read(row, text)
