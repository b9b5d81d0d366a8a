"""A model that decodes, ready to be timed: generation, replay of a known text, and the bytes that each step needs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from windtunnel.data.corpus import read_corpus
from windtunnel.errors import WorkError
from windtunnel.inference.batch import Batch, limit_of
from windtunnel.inference.compiled import Say
from windtunnel.inference.drafts import PromptLookup, Wanted
from windtunnel.inference.engine import CACHES
from windtunnel.inference.sampling import Sampling
from windtunnel.ledger import weight_bytes
from windtunnel.root import Model, ModelLayer

TOLERANCE = 1e-4  # of float32 logits, over the largest of them where that is above 1
_ROUNDINGS = 8  # of a 16-bit cache: how many times its precision logits may be off


class Generation(NamedTuple):
    """Seconds from the prompt to the first token, seconds between each two that follow, and the tokens [b n]."""

    first: float
    between: list[float]
    tokens: list[list[int]]


class Replay(NamedTuple):
    """A text that was decoded again: seconds, passes of the model, tokens that were drafted and those that held."""

    seconds: float
    passes: int
    drafted: int
    kept: int


@dataclass(frozen=True)
class Decoder:
    """One contestant. Weights are as initialised: speed does not depend on what they say."""

    label: str
    model: ModelLayer
    chunk: int
    compiled: bool = False
    say: Say | None = None
    cache_dtype: str | None = None

    @classmethod
    def of(
        cls,
        label: str,
        spec: Model,
        chunk: int,
        compiled: bool = False,
        say: Say | None = None,
        cache_dtype: str | None = None,
    ) -> "Decoder":
        """The contestant of a spec, on the CPU in float32."""
        return cls(label, spec.build().initialize(0).eval(), chunk, compiled, say, cache_dtype)

    @property
    def cache(self) -> torch.dtype:
        """The type of keys and values."""
        return CACHES[self.cache_dtype or "float32"]

    @property
    def tolerance(self) -> float:
        """Of logits: rounding of float32, and of the cache where it is narrower."""
        return max(TOLERANCE, _ROUNDINGS * torch.finfo(self.cache).eps)

    @property
    def fixed(self) -> bool:
        """Whether the state stops growing and no table bounds the positions."""
        return limit_of(self.model) is None

    @property
    def table(self) -> int | None:
        """Tokens that a table of positions allows."""
        length = getattr(getattr(self.model.embedding, "positions", None), "length", None)
        return None if length is None else int(length)

    def reserve(self, rows: int, capacity: int) -> Batch:
        """Pre-allocated states of `rows` sequences of up to `capacity` tokens."""
        return Batch(self.model, rows, capacity, self.chunk, self.compiled, self.say, self.cache)

    @torch.inference_mode()
    def generate(self, batch: Batch, prompts: Sequence[Sequence[int]], tokens: int) -> Generation:
        """The likeliest `tokens` tokens after each prompt, all prompts of one length, read by chunks."""
        for row in range(len(prompts)):
            batch.clear(row)
        began = time.perf_counter()
        chosen = self._prefill(batch, prompts)
        first, found = time.perf_counter() - began, [chosen]
        between = []
        for _ in range(tokens - 1):
            chosen, seconds = self._step(batch, chosen)
            between.append(seconds)
            found.append(chosen)
        return Generation(first, between, [list(row) for row in zip(*found, strict=True)])

    @torch.inference_mode()
    def whole(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """The first token after each prompt from one pass over all of it that keeps no state."""
        tokens = torch.tensor(prompts)
        hidden = self.model.encode(tokens, None, self.model.context_of(tokens)).hidden
        return self._likeliest(self.model.head(hidden[:, -1:], self.model.embedding.weight))

    def _prefill(self, batch: Batch, prompts: Sequence[Sequence[int]]) -> list[int]:
        for start in range(0, len(prompts[0]), self.chunk):
            logits = batch.feed(0, [prompt[start : start + self.chunk] for prompt in prompts])
        return self._likeliest(logits)

    def _step(self, batch: Batch, last: list[int]) -> tuple[list[int], float]:
        began = time.perf_counter()
        chosen = self._likeliest(batch.feed(0, [[token] for token in last]))
        return chosen, time.perf_counter() - began

    def _likeliest(self, logits: torch.Tensor) -> list[int]:
        tokens: list[int] = logits[:, -1].argmax(-1).tolist()
        return tokens

    @torch.inference_mode()
    def steps(self, batch: Batch, tokens: int) -> list[float]:
        """Seconds of each of so many further tokens of row 0."""
        return [self._step(batch, [0])[1] for _ in range(tokens)]

    @torch.inference_mode()
    def replay(self, batch: Batch, text: Sequence[int], start: int, drafts: int) -> Replay:
        """Decode text[start:] as if the model had chosen it, with drafts of at most `drafts` tokens by prompt lookup.

        What is kept is decided by the text, so it is what a model that writes this text would keep; the passes, and
        the rewinding after a draft that did not hold, are real.
        """
        lookup, text = PromptLookup(self.model.spec.vocab), list(text)
        batch.clear(0)
        batch.read(0, text[: start - 1])
        began, at, passes, drafted, kept = time.perf_counter(), start, 0, 0, 0
        while at < len(text):
            wanted = Wanted(text[:at], Sampling(), 0, min(drafts, len(text) - at - 1))
            draft = lookup.propose([wanted])[0].tokens if wanted.length else []
            if draft:
                batch.mark(range(1))
            batch.feed(0, [[text[at - 1], *draft]], last=len(draft) + 1).argmax(-1).tolist()
            held = agreed(draft, text[at:])
            at += held + 1
            if draft:
                batch.rewind(0, at - 1, text[: at - 1])
            passes, drafted, kept = passes + 1, drafted + len(draft), kept + held
        return Replay(time.perf_counter() - began, passes, drafted, kept)

    @torch.inference_mode()
    def error(self, length: int, singly: int) -> float:
        """How far decoding is from the full pass: the largest difference of logits, over the largest logit above 1.

        Two rows of `length` tokens: some singly, then chunks, then the last ones singly. Raises `WorkError` where it is
        more than `tolerance`.
        """
        text = corpus_tokens(self.model.spec.vocab, 2 * length)
        rows = [text[:length], text[length:]]
        full = self.model(torch.tensor(rows)).logits
        batch, worst = self.reserve(2, length), 0.0
        while batch.lengths[0] < length:
            at = batch.lengths[0]
            middle = singly <= at < length - singly
            size = min(self.chunk, length - singly - at) if middle else 1
            logits = batch.feed(0, [row[at : at + size] for row in rows], last=size)
            worst = max(worst, float((logits - full[:, at : at + size]).abs().max()))
        worst /= max(1.0, float(full.abs().max()))
        if not worst <= self.tolerance:
            raise WorkError(
                f"{self.label}: decoding differs from the full pass by {worst:.2g} of its logits, more than "
                f"{self.tolerance:g}; it was not timed"
            )
        return worst

    def gate_length(self, longest: int) -> int:
        """Tokens to check: as many as are measured, and two windows past the widest window."""
        windows = [getattr(module, "window", None) for module in self.model.modules()]
        wanted = max([longest, *(3 * window for window in windows if isinstance(window, int))])
        return wanted if self.table is None else min(wanted, self.table)

    @torch.inference_mode()
    def operations(self) -> int:
        """Operators that one step calls: below some width they, and not bytes, are what takes the time."""
        batch = self.reserve(1, 8)
        batch.feed(0, [[0, 0]])
        with _Counter() as counter:
            batch.feed(0, [[0]])
        return int(counter.calls)

    def weight_bytes(self, rows: int) -> float:
        """Bytes of the weights that a step of `rows` sequences reads, each once."""
        return weight_bytes(self.model, rows)

    def state_bytes(self, length: int) -> int:
        """Bytes of one sequence's state that the step after `length` tokens reads."""
        return self.model.state_bytes(length, self.cache.itemsize)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))


def agreed(draft: Sequence[int], text: Sequence[int]) -> int:
    """How many tokens of a draft stand at the head of the text."""
    return next((k for k, (one, other) in enumerate(zip(draft, text, strict=False)) if one != other), len(draft))


def corpus_tokens(vocab: int, count: int) -> list[int]:
    """So many bytes of the embedded corpus as tokens (modulo the vocabulary where that is smaller than 256)."""
    text = _corpus()
    return [byte % vocab for byte in (text * -(-count // len(text)))[:count]]


@lru_cache(maxsize=1)
def _corpus() -> bytes:
    return "".join(document.text for document in read_corpus().documents).encode()
