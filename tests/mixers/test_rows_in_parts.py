"""Rows that are read in two calls, with documents that begin before, in and across the second: as in one call."""

import pytest
import torch

from windtunnel.layer import Context
from windtunnel.mixers import (
    LRU,
    RGLRU,
    Attention,
    DiffAttention,
    DiffAttentionV2,
    LinearAttention,
    Mamba,
    Mixer,
    NormalizedAttention,
    Recurrent,
)
from windtunnel.positions import Rope

LENGTH, WIDTH = 13, 8
DOCUMENTS = torch.tensor([[0] * 3 + [1] * 7 + [2] * 3, [0] * 13, [0] * 6 + [1] + [2] * 6])
MIXERS: dict[str, Mixer] = {
    "attention": Attention(heads=2, rope=Rope()),
    "window": Attention(heads=2, window=4),
    "normalised": NormalizedAttention(heads=2, rope=Rope()),
    "differential": DiffAttention(heads=2, depth=1, rope=Rope()),
    "differential, second version": DiffAttentionV2(heads=2),
    "RG-LRU": Recurrent(recurrent_width=8, recurrence=RGLRU(blocks=2)),
    "LRU": LRU(hidden=6),
    "Mamba": Mamba(hidden=16),
    "linear, by means": LinearAttention(heads=2),
    "linear, by sums": LinearAttention(heads=2, normalisation="kernel", features="elu"),
    "linear, by count": LinearAttention(heads=2, normalisation="scaling"),
}


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("at", [2, 6, 7])
def test_two_calls_are_one(name: str, at: int) -> None:
    torch.manual_seed(0)
    layer = MIXERS[name].build(WIDTH).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, LENGTH, WIDTH, dtype=torch.float64)
    positions = torch.arange(LENGTH)
    whole, _ = layer(x, Context(positions, DOCUMENTS, reach=LENGTH))
    first, second = (
        Context(positions[:at], DOCUMENTS[:, :at], reach=at),
        Context(positions[at:], DOCUMENTS, reach=LENGTH),
    )
    state = layer.initial_state(3, x.device, x.dtype)
    begun, state = layer(x[:, :at], first, state)
    ended, _ = layer(x[:, at:], second, state)
    torch.testing.assert_close(torch.cat([begun, ended], 1), whole, rtol=0, atol=1e-12)
