"""Batches as a pure function of (data seed, step, row): no iterator, no state, nothing to save or to resume.

The token stream is cut into windows of `context + 1` tokens, `context` apart; where every document has just so many, as
pictures have, each is a window, and the cut stays where it is. Otherwise epoch e shifts the cut by an offset and
visits the windows in the order of a keyed permutation, both drawn from (data seed, e). The permutation is a generalised
Feistel network over Z_a x Z_b with cycle walking (Black and Rogaway 2002, section 5), so it is computed row by row and
never stored, whatever the size of the corpus.
"""

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from windtunnel.data.shard import Split
from windtunnel.errors import InputError

_ROUNDS = 6
_HASHED_BATCHES = 64
_HALF = np.uint64(32)
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64

Indices: TypeAlias = npt.NDArray[np.uint64]


class Batch(NamedTuple):
    """Tokens and their next tokens; `documents` numbers the documents inside each row, or is None if each has one.

    The token end_of_text starts its document, so the last token of a document has the next end_of_text as its target.
    """

    tokens: torch.Tensor  # b t int64
    targets: torch.Tensor  # b t int64
    documents: torch.Tensor | None  # b t int64


class Windows(Protocol):
    """Sequences that can be read with their targets, for a hash."""

    def window(self, sequences: range) -> npt.NDArray[Any]:
        """Everything in some sequences; one row each."""
        ...


class Batches(ABC):
    """Batches of an endless order of sequences 0, 1, ..., of which each step takes the next."""

    def __init__(self, end_of_text: int, context: int, data_seed: int) -> None:
        if context < 1:
            raise InputError(f"context must be at least 1, not {context}")
        self._end_of_text = end_of_text
        self.context = context
        self.data_seed = data_seed

    def batch(self, step: int, batch_size: int, rows: slice = slice(None)) -> Batch:
        """Rows `rows` of the batch of step `step`; any slicing into micro-batches gives the same rows."""
        return self.read(_sequences(step, batch_size)[rows])

    def read(self, sequences: range) -> Batch:
        """A batch of any consecutive sequences 0, 1, ... of the order."""
        window = self.window(sequences).astype(np.int64)
        tokens = torch.from_numpy(window[:, :-1].copy())
        starts = window[:, 1:-1] == self._end_of_text  # b t-1: a document that begins after the row's first token
        documents = None
        if starts.any():
            documents = torch.zeros_like(tokens)
            documents[:, 1:] = torch.from_numpy(np.cumsum(starts, axis=1))
        return Batch(tokens, torch.from_numpy(window[:, 1:].copy()), documents)

    @abstractmethod
    def window(self, sequences: range) -> npt.NDArray[Any]:
        """The token ids of some sequences, each with its last target: b t+1."""

    @abstractmethod
    def epochs_by_set(self, sequences: int) -> dict[str, float]:
        """How often the first so many sequences go through each set; "" is the name of the only one."""

    @abstractmethod
    def _too_often(self, name: str, sequences: int, max_epochs: float) -> str:
        """What may be asked of a set instead, for the message that refuses a request."""

    def epochs(self, steps: int, batch_size: int) -> float:
        """How often `steps` steps go through the data, or through the set that they repeat most."""
        return max(self.epochs_by_set(steps * batch_size).values())

    def check_epochs(self, steps: int, batch_size: int, max_epochs: float = 4.0) -> None:
        """Refuse a request that repeats the corpus, or a set of it, more than `max_epochs` times."""
        sequences = steps * batch_size
        for name, epochs in self.epochs_by_set(sequences).items():
            if epochs > max_epochs:
                raise InputError(
                    f"tokens {sequences * self.context} would be {epochs:.1f} epochs of "
                    + self._too_often(name, sequences, max_epochs)
                )


class Sampler(Batches):
    """Draws batches of windows from one split, in an order that `data_seed` alone decides; a set's with its name."""

    def __init__(self, split: Split, context: int, data_seed: int, name: str = "") -> None:
        super().__init__(split.end_of_text, context, data_seed)
        self._tokens: npt.NDArray[Any] = np.asarray(split.tokens)
        self._name = name
        self._span = np.arange(context + 1, dtype=np.int64)
        whole = bool((np.diff(split.offsets) == context + 1).all())
        self._stride, self._shifts = (context + 1, 1) if whole else (context, context)
        self.windows = self._tokens.size // self._stride if whole else (self._tokens.size - context) // context
        if self.windows < 1:
            owner = f" of set {name!r}" if name else ""
            raise InputError(
                f"{self._tokens.size} training tokens{owner} hold no window of context {context}; at least "
                f"{2 * context} are needed: name more data or a shorter context"
            )

    def window(self, sequences: range) -> npt.NDArray[Any]:
        return self.windows_at(np.arange(sequences.start, sequences.stop, sequences.step, dtype=np.int64))

    def windows_at(self, drawn: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The same for sequences in any order."""
        window: npt.NDArray[Any] = self._tokens[self._starts(drawn)[:, None] + self._span]
        return window

    def starts(self, step: int, batch_size: int, rows: slice = slice(None)) -> npt.NDArray[np.int64]:
        """Where in the stream each row of the batch starts."""
        return self._starts(np.array(_sequences(step, batch_size)[rows], dtype=np.int64))

    def _starts(self, drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        starts = np.empty_like(drawn)
        epochs = drawn // self.windows
        for epoch in dict.fromkeys(epochs.tolist()):
            rounds, offset = _epoch_keys(self.data_seed, epoch, self.context, self._name)
            here = epochs == epoch
            place = permute((drawn[here] % self.windows).astype(np.uint64), self.windows, rounds)
            starts[here] = offset % self._shifts + place.astype(np.int64) * self._stride
        return starts

    def epochs_by_set(self, sequences: int) -> dict[str, float]:
        return {self._name: sequences / self.windows}

    def _too_often(self, name: str, sequences: int, max_epochs: float) -> str:
        most = int(max_epochs * self.windows * self.context)
        return (
            f"{self.windows * self.context} training tokens (at most {max_epochs:g} are allowed): ask for at most "
            f"{most} tokens, or name more data"
        )


def batch_hash(sampler: Windows, steps: int, batch_size: int | Callable[[int], range]) -> str:
    """SHA-256 of the token ids, targets included, of the first 64 and the last 64 batches of a run.

    batch_size: sequences a step, or a function that gives the sequences of a step.
    """
    of_step = batch_size if callable(batch_size) else functools.partial(_sequences, batch_size=batch_size)
    digest = hashlib.sha256()
    for step in sorted({*range(min(_HASHED_BATCHES, steps)), *range(max(0, steps - _HASHED_BATCHES), steps)}):
        digest.update(sampler.window(of_step(step)).astype("<u4").tobytes())
    return digest.hexdigest()


def _sequences(step: int, batch_size: int) -> range:
    """The sequences of a step where all batches have one size."""
    return range(step * batch_size, (step + 1) * batch_size)


def permute(index: Indices, size: int, keys: npt.NDArray[np.uint64]) -> Indices:
    """Where a keyed permutation of 0 .. size-1 sends each index."""
    left_size = math.isqrt(size - 1) + 1
    right_size = -(-size // left_size)
    out = _feistel(index, left_size, right_size, keys)
    while (outside := out >= size).any():
        out[outside] = _feistel(out[outside], left_size, right_size, keys)
    return out


def _feistel(index: Indices, left_size: int, right_size: int, keys: npt.NDArray[np.uint64]) -> Indices:
    """A permutation of 0 .. left_size*right_size-1: each round adds a keyed hash of one half to the other."""
    left_modulus, right_modulus = np.uint64(left_size), np.uint64(right_size)
    left, right = index % left_modulus, index // left_modulus
    for even, odd in zip(keys[0::2], keys[1::2], strict=True):
        left = (left + _hash(right, even)) % left_modulus
        right = (right + _hash(left, odd)) % right_modulus
    return right * left_modulus + left


def _hash(value: Indices, key: np.uint64) -> Indices:
    """32 well-mixed bits of value and key: multiply, fold, multiply, keep the upper half."""
    value = (value + key) * _FIRST_MULTIPLIER
    value ^= value >> _HALF
    value *= _SECOND_MULTIPLIER
    return value >> _HALF


@functools.lru_cache(maxsize=64)
def _epoch_keys(data_seed: int, epoch: int, context: int, name: str) -> tuple[npt.NDArray[np.uint64], int]:
    """The round keys of an epoch's permutation and the offset of its cut, from SHA-256 of (seed, epoch, set)."""
    words, owner = [], f" {name}" if name else ""
    for number in range(_ROUNDS + 1):
        digest = hashlib.sha256(f"windtunnel sampler 1 {data_seed} {epoch} {number}{owner}".encode()).digest()
        words.append(int.from_bytes(digest[:8], "little"))
    return np.array(words[:_ROUNDS], dtype=np.uint64), words[_ROUNDS] % context
