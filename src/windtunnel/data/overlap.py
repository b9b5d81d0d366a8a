"""How much of the held-out text also stands in the training text: shared runs of 13 words.

Words are what ASCII whitespace separates. Words and runs are compared by 64-bit hashes, computed for whole
megabytes at a time, so that 12 MB take about a second.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.mixing import mix

WORDS = 13
_BATCH_BYTES = 1 << 22
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_MODULUS = 1 << 64

Hashes: TypeAlias = npt.NDArray[np.uint64]
_WHITESPACE = np.zeros(256, dtype=bool)
_WHITESPACE[[9, 10, 11, 12, 13, 32]] = True


@dataclass(frozen=True, slots=True)
class Overlap:
    """For each held-out document, how many runs of 13 words it has and how many of them training has too."""

    shared: tuple[int, ...]
    total: tuple[int, ...]

    @property
    def grams(self) -> float:
        """Share of all held-out runs that training has too."""
        return sum(self.shared) / max(sum(self.total), 1)

    @property
    def documents(self) -> float:
        """Share of the held-out documents that have at least one such run."""
        return sum(1 for count in self.shared if count) / max(len(self.shared), 1)

    def only(self, kept: Sequence[int]) -> "Overlap":
        """The same figures for some of the documents."""
        return Overlap(tuple(self.shared[i] for i in kept), tuple(self.total[i] for i in kept))


def measure_overlap(train: Iterable[str], heldout: Iterable[str], words: int = WORDS) -> Overlap:
    """Compare all runs of `words` words inside held-out documents with those inside training documents."""
    asked = [_document_grams(text, words) for text in heldout]
    total = tuple(grams.size for grams in asked)
    wanted = np.unique(np.concatenate(asked)) if asked else np.zeros(0, np.uint64)
    if wanted.size == 0:
        return Overlap((0,) * len(asked), total)
    found = np.zeros(wanted.size, dtype=bool)
    for grams in _all_grams(train, words):
        place = np.searchsorted(wanted, grams)
        place[place == wanted.size] = 0
        found[place[wanted[place] == grams]] = True
    return Overlap(tuple(int(found[np.searchsorted(wanted, grams)].sum()) for grams in asked), total)


def _document_grams(text: str, words: int) -> Hashes:
    return next(_all_grams([text], words), np.zeros(0, np.uint64))


def _all_grams(texts: Iterable[str], words: int) -> Iterator[Hashes]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(text.encode("utf-8"))
        size += len(batch[-1])
        if size >= _BATCH_BYTES:
            yield _gram_hashes(batch, words)
            batch, size = [], 0
    if batch:
        yield _gram_hashes(batch, words)


def _gram_hashes(documents: list[bytes], words: int) -> Hashes:
    data = np.frombuffer(b" ".join(documents), dtype=np.uint8)
    starts, ends = _word_bounds(data)
    lengths = np.array([len(document) for document in documents], dtype=np.int64) + 1
    owner = np.searchsorted(np.cumsum(lengths), starts, side="right")
    if starts.size < words:
        return np.zeros(0, np.uint64)
    hashes = mix(_word_hashes(data, starts, ends))
    grams = np.zeros(starts.size - words + 1, dtype=np.uint64)
    for offset in range(words):
        grams = grams * np.uint64(_BASE) + hashes[offset : offset + grams.size]
    inside: Hashes = mix(grams)[owner[: grams.size] == owner[words - 1 :]]
    return inside


def _word_bounds(data: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    inside = np.concatenate([[False], ~_WHITESPACE[data], [False]])
    change = np.flatnonzero(inside[1:] != inside[:-1])
    return change[0::2], change[1::2]


def _word_hashes(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Hashes:
    """sum_i (byte_i + 1) * base**i over each word, from one running sum: (S[end] - S[start]) * base**-start."""
    sums = np.zeros(data.size + 1, dtype=np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * _powers(_BASE, data.size), out=sums[1:])
    inverse = _powers(pow(_BASE, -1, _MODULUS), data.size)
    hashes: Hashes = (sums[ends] - sums[starts]) * inverse[starts]
    return hashes


def _powers(base: int, count: int) -> Hashes:
    powers = np.full(max(count, 1), base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)
