"""Sets mixed by weight: which set each sequence of the order comes from is a pure function of (seed, sequence).

Sequence i belongs to the set in whose share of [0, 1) the fractional part of o + i/phi falls, with the offset o drawn
from the seed and phi the golden ratio (Weyl 1916), in whole numbers modulo 2^32. Any n sequences in a row then hold
each set to within a few sequences of n times its weight, and how often a set came before any place is a sum of floors,
computed in a few steps without going through them. Within its set each sequence is the next of that set's own order.
"""

import functools
import hashlib
import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.sampler import Batches, Sampler
from windtunnel.data.shard import Split
from windtunnel.errors import InputError
from windtunnel.spec import Spec

_MODULUS = 1 << 32
_STEP = 0x9E3779B1  # 2^32 over the golden ratio, to the next odd number: every value comes once in 2^32 sequences

Positions: TypeAlias = npt.NDArray[np.int64]


class Share(Spec):
    """A set and its weight, the share of all sequences that come from it, over the sum of all weights."""

    set: str
    weight: float

    def validate(self) -> None:
        finite = 0 < self.weight < math.inf
        self.require(finite, f"weight of set {self.set!r} is {self.weight}; it must be a finite number above 0")


Mix: TypeAlias = tuple[Share, ...]


def make_sampler(split: Split, context: int, data_seed: int, mixture: Mix = ()) -> Batches:
    """The order of a run's data: the whole stream's, or that of its sets mixed by weight."""
    return Mixture(split, context, data_seed, mixture) if mixture else Sampler(split, context, data_seed)


class Mixture(Batches):
    """Draws batches from several sets of one split, each in an order of its own."""

    def __init__(self, split: Split, context: int, data_seed: int, mixture: Mix) -> None:
        super().__init__(split.end_of_text, context, data_seed)
        known = dict(split.parts)
        unknown = [share.set for share in mixture if share.set not in known]
        if unknown:
            raise InputError(_no_such_set(unknown[0], known))
        self._names = [share.set for share in mixture]
        self._samplers = [Sampler(split.part(name), context, data_seed, name) for name in self._names]
        self._bounds = _bounds([share.weight for share in mixture])
        digest = hashlib.sha256(f"windtunnel mixture 1 {data_seed}".encode()).digest()
        self._offset = int.from_bytes(digest[:4], "little")

    def window(self, sequences: range) -> npt.NDArray[Any]:
        owners, places = self.owners(sequences)
        ids: npt.NDArray[Any] | None = None
        for number, sampler in enumerate(self._samplers):
            here = owners == number
            if here.any():
                rows = sampler.windows_at(places[here])
                ids = np.empty((len(owners), self.context + 1), dtype=rows.dtype) if ids is None else ids
                ids[here] = rows
        return np.empty((0, self.context + 1), dtype=np.uint16) if ids is None else ids

    def owners(self, sequences: range) -> tuple[Positions, Positions]:
        """For each sequence the number of its set, and which of the set's own sequences it is."""
        if not sequences:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        first, last = min(sequences), max(sequences)
        drawn = np.arange(first, last + 1, dtype=np.uint64)
        values = (drawn * np.uint64(_STEP) + np.uint64(self._offset)) % np.uint64(_MODULUS)
        owners = np.searchsorted(np.array(self._bounds[1:], dtype=np.uint64), values, side="right")
        places = np.empty(len(drawn), dtype=np.int64)
        for number, before in enumerate(self._before(first)):
            here = owners == number
            places[here] = before + np.arange(here.sum())
        asked = np.array(sequences, dtype=np.int64) - first
        return owners[asked].astype(np.int64), places[asked]

    def epochs_by_set(self, sequences: int) -> dict[str, float]:
        counts = zip(self._names, self._samplers, self._before(sequences), strict=True)
        return {name: count / sampler.windows for name, sampler, count in counts}

    def _before(self, sequence: int) -> list[int]:
        """How many of the sequences before this one come from each set."""
        below = [_below(bound, sequence, self._offset) for bound in self._bounds]
        return [after - before for before, after in pairwise(below)]

    def _too_often(self, name: str, sequences: int, max_epochs: float) -> str:
        number = self._names.index(name)
        windows = self._samplers[number].windows
        weight = (self._bounds[number + 1] - self._bounds[number]) / _MODULUS
        most, lighter = int(max_epochs * windows / weight) * self.context, max_epochs * windows / sequences
        return (
            f"set {name!r}, {windows * self.context} training tokens (at most {max_epochs:g} are allowed): ask for at "
            f"most {most} tokens, give it at most {lighter:.3g} of all sequences instead of {weight:.3g}, or name more "
            "data"
        )


def resolve(mix: Mapping[str, str], split: Split) -> Mix:
    """Weights for the sets of a split, from what was typed for each: `0.3`, or `3x` for epochs beside the others.

    Epochs make a set's weight its training tokens times its epochs. A weight of 0 leaves a set out. Raises InputError
    for a set without a weight, a weight without a set, and weights and epochs mixed.
    """
    known = dict(split.parts)
    missing = [name for name in known if name not in mix]
    unknown = [name for name in mix if name not in known]
    if unknown:
        raise InputError(_no_such_set(unknown[0], known))
    if missing:
        raise InputError(f"mix: set {missing[0]!r} of the data has no weight; give it one, 0 to leave it out")
    epochs = {name: text.endswith("x") for name, text in mix.items()}
    if len(set(epochs.values())) > 1:
        weighed, repeated = (next(name for name in mix if epochs[name] is kind) for kind in (False, True))
        given = f"{weighed}={mix[weighed]} is a weight and {repeated}={mix[repeated]} are epochs"
        raise InputError(f"mix: {given}; give one kind for all")
    weights = {name: _number(name, mix[name]) for name in known}
    if any(epochs.values()):
        weights = {name: weight * int(_tokens(split, name)) for name, weight in weights.items()}
    total = math.fsum(weights.values())
    if not 0 < total < math.inf:
        raise InputError("mix: no set has a weight above 0")
    return tuple(Share(set=name, weight=weight / total) for name, weight in weights.items() if weight)


def typed(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=WEIGHT` for each set; the name may hold equals signs itself."""
    mix: dict[str, str] = {}
    for pair in pairs:
        name, equals, weight = pair.rpartition("=")
        if not equals or not name or not weight:
            raise InputError(f"--mix {pair}: expected NAME=WEIGHT, such as wiki=0.3, or NAME=EPOCHSx, such as wiki=3x")
        if name in mix:
            raise InputError(f"--mix {pair}: set {name!r} was given {mix[name]} already")
        mix[name] = weight
    return mix


def _number(name: str, text: str) -> float:
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"mix: {name}={text}; expected a number of at least 0, such as 0.3, or epochs, such as 3x")
    return value


def _tokens(split: Split, name: str) -> int:
    first, last = dict(split.parts)[name]
    return int(split.offsets[last] - split.offsets[first])


def _no_such_set(name: str, known: Iterable[str]) -> str:
    sets = ", ".join(known)
    if not sets:
        return f"mix: there is no set {name!r}: the data is all one set; name its parts with --data NAME=PATH"
    return f"mix: there is no set {name!r} in the data; its sets are {sets}"


def _bounds(weights: list[float]) -> list[int]:
    """Where each set's share of 0 .. 2^32 begins, and the end of the last."""
    ends = np.cumsum(np.array(weights, dtype=np.float64))
    bounds = [0, *(round(float(end / ends[-1]) * _MODULUS) for end in ends)]
    if any(before == after for before, after in pairwise(bounds)):
        raise InputError("mix: a weight is less than 1/2^32 of all; leave its set out")
    return bounds


def _below(bound: int, count: int, offset: int) -> int:
    """How many of the numbers (offset + i * step) mod 2^32, i < count, are below `bound`."""
    return _floors(count, offset) - _floors(count, offset - bound + _MODULUS) + count


@functools.lru_cache(maxsize=1024)
def _floors(count: int, start: int, step: int = _STEP, modulus: int = _MODULUS) -> int:
    """Sum over i < count of floor((start + i * step) / modulus), by Euclid's steps on (step, modulus)."""
    total = 0
    while count:
        total += (step // modulus) * (count * (count - 1) // 2) + (start // modulus) * count
        step, start = step % modulus, start % modulus
        highest = step * count + start
        if highest < modulus:
            break
        count, start, step, modulus = highest // modulus, highest % modulus, modulus, step
    return total
