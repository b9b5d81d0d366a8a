"""How spread out attention is, by the position of the query: one of the things that change beyond the trained length.

For a map a of one head, H = - sum p ln p in nats, with p = |a| / sum |a| over the keys of a query: differential
attention has negative entries. Even attention to n keys has ln n.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from windtunnel.mixers import AttendingLayer
from windtunnel.root import ModelLayer


@torch.no_grad()
def attention_entropy(model: ModelLayer, tokens: Tensor) -> Tensor | None:
    """Mean over rows, heads and layers by query [t], in float64; None where no mixer has maps.

    Needs memory for a whole map of each head.
    """
    found: list[Tensor] = []
    with _watched(model, found):
        model(tokens, last=1)
    return torch.stack(found).mean(0) if found else None


def entropy(maps: Tensor) -> Tensor:
    """Of weights [.., s], in nats; [..]."""
    share = maps.double().abs()
    share = share / share.sum(-1, keepdim=True)
    nats: Tensor = torch.special.entr(share).sum(-1)
    return nats


@contextmanager
def _watched(model: ModelLayer, found: list[Tensor]) -> Iterator[None]:
    """While this lasts, every call of a mixer that has maps adds its mean entropies [t]."""

    def measure(mixer: Any, given: tuple[Any, ...]) -> None:
        found.append(entropy(mixer.attention_maps(given[0], given[1])).mean((0, 1)))

    layers = [layer for layer in model.modules() if isinstance(layer, AttendingLayer)]
    handles = [layer.register_forward_pre_hook(measure) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
