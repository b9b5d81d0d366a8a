"""Stretching rotary positions over more than the trained context.

Letters: theta_i the frequency of pair i = 0 .. r/2-1 of r rotated numbers, L the trained context, N the wanted one, and
s = N / L the factor, at least 1. All are functions of the position alone, so that rotated keys can be cached.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.spec import Spec, nearest


class Scaling(Spec):
    """New frequencies for rotary positions; `factor` is s."""

    factor: float

    def validate(self) -> None:
        self.require(self.factor >= 1, f"factor must be at least 1, got {self.factor}; shorter texts need no scaling")

    def frequencies(self, base: Tensor, theta: float) -> Tensor:
        """[r/2] angles per position from the unscaled ones `base`, in float64."""
        raise NotImplementedError

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by as they are rotated; scores change by its square."""
        return 1.0


class Interpolation(Scaling):
    """theta_i / s: position m is read as m L / N (Chen et al. 2023, arXiv 2306.15595)."""

    def frequencies(self, base: Tensor, theta: float) -> Tensor:
        return base / self.factor


class NTK(Scaling):
    """theta_i s^(-2i/(r-2)), the base theta being raised to theta s^(r/(r-2)): the fastest pair stays, the slowest is
    divided by s (bloc97 2023; Peng et al. 2023, arXiv 2309.00071, section 3.1).
    """

    def frequencies(self, base: Tensor, theta: float) -> Tensor:
        return _raised(base, self.factor)


class DynamicNTK(Scaling):
    """NTK with s = factor T/L - (factor - 1) for T tokens; nothing changes for T <= L (Peng et al., section 3.3).

    trained: L. length: T, fixed here. Taking T from the text in hand would turn the keys in a cache into those of
    other frequencies with every token; a text of another length is read by a spec of another `length`, whose
    parameters are the same.
    """

    factor: float = 1.0
    trained: int
    length: int

    def validate(self) -> None:
        super().validate()
        _check_trained(self, self.trained)
        self.require(self.length > 0, f"length must be positive, got {self.length}")

    def frequencies(self, base: Tensor, theta: float) -> Tensor:
        stretch = self.factor * self.length / self.trained - (self.factor - 1)
        return _raised(base, max(1.0, stretch))


class Llama3(Scaling):
    """By parts: with r_i = L theta_i / 2 pi rotations in the trained context, pairs of more than `high` rotations stay,
    those of fewer than `low` are divided by s, and those between are blended linearly in r_i (Llama 3.1).
    """

    factor: float = 8.0
    trained: int = 8192
    low: float = 1.0
    high: float = 4.0

    def validate(self) -> None:
        super().validate()
        _check_trained(self, self.trained)
        self.require(0 < self.low < self.high, f"low {self.low} must be positive and less than high {self.high}")

    def frequencies(self, base: Tensor, theta: float) -> Tensor:
        return _blended(base, self.factor, _rotations_kept(base, self.trained, self.low, self.high))


class YaRN(Scaling):
    """By parts, and with sharper attention: scores are multiplied by (0.1 ln s + 1)^2 (Peng et al. 2023, section 3.4).

    ramp: between `slow` and `fast` rotations pairs are blended linearly in the "index" i, as in the code that all
    released models used (ends rounded outwards if `truncate`), or in their "rotations", as in the paper (section 3.2);
    these are different functions. attention: what queries and keys are multiplied by; None is 0.1 ln s + 1, and 1 gives
    the paper's NTK-by-parts.
    """

    trained: int
    ramp: Literal["index", "rotations"] = "index"
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True
    attention: float | None = None

    def validate(self) -> None:
        super().validate()
        _check_trained(self, self.trained)
        self.require(0 < self.slow < self.fast, f"slow {self.slow} must be positive and less than fast {self.fast}")
        self.require(self.attention is None or self.attention > 0, f"attention must be positive, got {self.attention}")

    @property
    def magnitude(self) -> float:
        return self.attention if self.attention is not None else 0.1 * math.log(self.factor) + 1

    def frequencies(self, base: Tensor, theta: float) -> Tensor:
        by_index = self.ramp == "index"
        kept = self._index_kept(base, theta) if by_index else _rotations_kept(base, self.trained, self.slow, self.fast)
        return _blended(base, self.factor, kept)

    def _index_kept(self, base: Tensor, theta: float) -> Tensor:
        rotated = 2 * len(base)
        low, high = (self._index_of(rotations, rotated, theta) for rotations in (self.fast, self.slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotated - 1)  # r - 1, not r/2 - 1, as in the released code
        index = torch.arange(len(base), dtype=base.dtype, device=base.device)
        return 1 - ((index - low) / (high - low if high != low else 0.001)).clamp(0, 1)

    def _index_of(self, rotations: float, rotated: int, theta: float) -> float:
        """The index, not whole, of the pair that turns so often within the trained context."""
        return rotated * math.log(self.trained / (2 * math.pi * rotations)) / (2 * math.log(theta))


SCALINGS = ("linear", "ntk", "dynamic", "yarn", "llama3")


def scaling_for(method: str, trained: int, length: int) -> Scaling:
    """From a trained context to `length` tokens by linear, ntk, dynamic, yarn or llama3, all else as published."""
    factor = max(1.0, length / trained)
    made: dict[str, Scaling] = {
        "linear": Interpolation(factor=factor),
        "ntk": NTK(factor=factor),
        "dynamic": DynamicNTK(trained=trained, length=length),
        "yarn": YaRN(factor=factor, trained=trained),
        "llama3": Llama3(factor=factor, trained=trained),
    }
    if method not in made:
        raise InputError(f"method: unknown way to extend a context {method!r}{nearest(method, made)}")
    return made[method]


def _check_trained(spec: Scaling, trained: int) -> None:
    spec.require(trained > 0, f"trained must be positive, got {trained}")


def _raised(base: Tensor, factor: float) -> Tensor:
    pairs = len(base)
    index = torch.arange(pairs, dtype=base.dtype, device=base.device)
    return base * factor ** (-index / max(pairs - 1, 1))


def _rotations_kept(base: Tensor, trained: int, low: float, high: float) -> Tensor:
    """The share of each frequency that stays: 0 up to `low` rotations in the trained context, 1 from `high` on."""
    rotations = trained * base / (2 * math.pi)
    return ((rotations - low) / (high - low)).clamp(0, 1)


def _blended(base: Tensor, factor: float, kept: Tensor) -> Tensor:
    return kept * base + (1 - kept) * base / factor
