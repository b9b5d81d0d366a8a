"""Longformer's encoder attention against the published implementation's, and against a mask of all pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LongformerConfig, LongformerModel

from tests.proof import Proof
from windtunnel.kernels import attention_reference
from windtunnel.mixers.base import merge_heads, split_heads
from windtunnel.mixers.symmetric import Projected, symmetric_attention

HEADS, WIDTH, SCALE = 2, 8, 0.5


def projected(b: int, t: int, seed: int) -> Projected:
    draw = torch.Generator().manual_seed(seed)
    parts = (torch.randn(b, HEADS, t, WIDTH, dtype=torch.float64, generator=draw) for _ in range(3))
    return Projected(*(x.requires_grad_() for x in parts))


def by_masks(
    common: Projected, own: Projected, radius: int, is_global: Tensor, padding: Tensor, dilation: int
) -> Tensor:
    at = torch.arange(is_global.shape[1])
    distance = (at[:, None] - at).abs()
    chosen = is_global & ~padding
    near = (distance <= radius * dilation) & (distance % dilation == 0)
    seen = (near | chosen[:, None, :]) & ~padding[:, None, :]
    plain = attention_reference(*common, SCALE, seen.unsqueeze(1))
    whole = attention_reference(*own, SCALE, ~padding[:, None, None, :])
    mixed = torch.where(chosen[:, None, :, None], whole, plain)
    return mixed.masked_fill(padding[:, None, :, None], 0.0)


@given(
    length=st.integers(1, 150),
    radius=st.integers(0, 20),
    dilation=st.integers(1, 4),
    tokens=st.floats(0, 0.2),
    padded=st.integers(0, 10),
)
@settings(max_examples=25)
def test_values_and_gradients(length: int, radius: int, dilation: int, tokens: float, padded: int) -> None:
    common, own = projected(2, length, 0), projected(2, length, 1)
    is_global = torch.rand(2, length, generator=torch.Generator().manual_seed(2)) < tokens
    padding = torch.zeros_like(is_global)
    padding[1, max(0, length - padded) :] = True
    ours = symmetric_attention(common, own, SCALE, radius, is_global, padding, dilation)
    expected = by_masks(common, own, radius, is_global, padding, dilation)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(3))
    inputs = [*common, *own]
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        rtol=1e-10,
        atol=1e-11,
    )


@pytest.mark.parametrize("places", [(), (0,), (0, 9, 10, 23)])
@torch.no_grad()
def test_against_longformers_own(places: tuple[int, ...], proof: Proof) -> None:
    """An `attention_window` of 8 is 4 on either side. Their mask: 0 is plain, more is global, less is padding."""
    b, t, window = 2, 24, 8
    config = LongformerConfig(
        vocab_size=11,
        hidden_size=HEADS * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        attention_window=[window],
    )
    theirs = LongformerModel(config).double().eval().encoder.layer[0].attention.self
    for parameter in theirs.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel() + parameter.dim()))
    x = torch.randn(b, t, config.hidden_size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    is_global, padding = torch.zeros(b, t, dtype=torch.bool), torch.zeros(b, t, dtype=torch.bool)
    is_global[:, list(places)], padding[1, 21:] = True, True
    is_global &= ~padding
    mask = torch.zeros(b, t, dtype=torch.float64).masked_fill(is_global, 10000.0).masked_fill(padding, -10000.0)
    expected = theirs(
        x,
        attention_mask=mask,
        is_index_masked=padding,
        is_index_global_attn=is_global,
        is_global_attn=bool(is_global.any()),
    )[0]
    names = ("query", "key", "value")
    common, own = (
        Projected(*(split_heads(getattr(theirs, name + suffix)(x), HEADS) for name in names))
        for suffix in ("", "_global")
    )
    ours = merge_heads(symmetric_attention(common, own, WIDTH**-0.5, window // 2, is_global, padding))
    real = ~padding
    error = ((ours - expected)[real].abs().max() / expected[real].abs().max()).item()
    assert error < 1e-6  # their softmax is in float32
    proof("Longformer's encoder attention", "transformers LongformerSelfAttention", values=error)
