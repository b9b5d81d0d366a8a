"""Self-test 9: a model to which all V symbols are alike costs log2 V bits a byte."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from windtunnel.evaluation.loss import evaluate_loss
from windtunnel.selftest.check import Lab, Outcome, worst

END_OF_TEXT = 256
BYTES = np.array([1] * 256 + [0])
ALLOWED = 1e-6


@dataclass(frozen=True)
class Documents:
    """Held-out documents as evaluation takes them."""

    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    bytes: NDArray[np.int64]
    names: list[str]
    sets: list[str | None] = field(default_factory=list)


def documents(texts: list[bytes]) -> Documents:
    """Texts as a stream of bytes, each after an end_of_text."""
    parts = [np.array([END_OF_TEXT, *text], np.uint16) for text in texts]
    offsets = np.cumsum([0, *map(len, parts)])
    sizes = np.array([len(text) for text in texts])
    return Documents(np.concatenate(parts), offsets, sizes, [f"{index}" for index in range(len(texts))])


class Uniform(nn.Module):
    """Every one of `symbols` equally likely."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(symbols))

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Nats of each target [b t]."""
        logits = self.logits.expand(*tokens.shape, -1)
        return F.cross_entropy(logits.movedim(-1, 1), targets, ignore_index=-1, reduction="none")


def drawn_texts() -> list[bytes]:
    """Texts of odd sizes, one of them empty."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, size).astype(np.uint8).tobytes() for size in (1, 7, 8, 9, 40, 0, 23)]


def uniform_bits(symbols: int) -> float:
    """Bits a byte of a model to which so many symbols are alike."""
    model: Any = Uniform(symbols)
    return evaluate_loss(model, documents(drawn_texts()), BYTES, context=8).bits_per_byte


def bits_per_byte(lab: Lab) -> Outcome:
    """256 symbols are 8 bits; 257 where the end of a text keeps its share, though it is never a target."""
    return worst({f"{n} symbols": abs(uniform_bits(n) - math.log2(n)) for n in (256, 257)}, ALLOWED, " bits")
