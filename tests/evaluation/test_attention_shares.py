"""Shares of attention: maps made by hand, and the maps of every mixer against what the mixer gives."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.recipes.cases import model_of, tokens_for
from windtunnel.errors import InputError
from windtunnel.evaluation.attention_shares import FIRST, attention_shares
from windtunnel.layer import Context
from windtunnel.mixers import AttendingLayer, Attention, DiffAttention, DiffAttentionV2, NormalizedAttention
from windtunnel.mixers.base import merge_heads, split_heads
from windtunnel.model import LanguageModelLayer

TWO_DOCUMENTS = torch.tensor([[0] * 4 + [1] * 8, [0] * 7 + [1] * 5])


def marked(*at: tuple[int, int], length: int = 12) -> Tensor:
    """[2 t], True at these (row, position)."""
    found = torch.zeros(2, length, dtype=torch.bool)
    for row, position in at:
        found[row, position] = True
    return found


def answered(model: LanguageModelLayer, maps: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every layer of a model these maps."""
    for module in model.modules():
        if isinstance(module, AttendingLayer):
            monkeypatch.setattr(module, "attention_maps", lambda x, context: maps)


def test_shares_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One head positive, one as in differential attention: rows that sum to 1/2, with noise that cancels."""
    model = model_of("llama", layers=2)
    maps = torch.zeros(2, 2, 12, 12)
    maps[0, 0, 10, [0, 3, 4, 9]] = torch.tensor([0.1, 0.5, 0.2, 0.2])
    maps[1, 0, 11, [0, 5, 8]] = torch.tensor([0.3, 0.1, 0.6])
    maps[0, 1, 10, [3, 7, 8]] = torch.tensor([0.5, 0.2, -0.2])
    maps[1, 1, 11, [0, 5, 8]] = torch.tensor([0.25, 0.5, -0.25])
    answered(model, maps, monkeypatch)
    answer, noise = marked((0, 3), (0, 4), (1, 5)), marked((0, 7), (0, 8), (0, 9), (1, 8))
    tokens = tokens_for(model.spec, length=12)
    found = attention_shares(model, tokens, marked((0, 10), (1, 11)), {"answer": answer, "noise": noise})
    rows = {(row.layer, row.head, row.span): (row.share, row.magnitude) for row in found.rows}
    assert len(rows) == 2 * 2 * 3
    for layer in ("blocks.0.mixer", "blocks.1.mixer"):
        assert rows[layer, 0, "answer"] == pytest.approx(((0.7 + 0.1) / 2, (0.7 + 0.1) / 2))
        assert rows[layer, 0, "noise"] == pytest.approx(((0.2 + 0.6) / 2, (0.2 + 0.6) / 2))
        assert rows[layer, 0, FIRST] == pytest.approx((0.2, 0.2))
        assert rows[layer, 1, "answer"] == pytest.approx(((1.0 + 1.0) / 2, (0.5 / 0.9 + 0.5) / 2))
        assert rows[layer, 1, "noise"] == pytest.approx(((0.0 - 0.5) / 2, (0.4 / 0.9 + 0.25) / 2))
        assert rows[layer, 1, FIRST] == pytest.approx((0.25, 0.125))
    assert found.mean("answer") == pytest.approx((0.4 + 1.0) / 2)
    assert found.mean("answer", "blocks.1.mixer") == pytest.approx(0.7)
    assert json.loads(json.dumps(found.to_json()))["mean"][FIRST] == pytest.approx(0.225)
    assert found.table().rows[-1] == ["all", "0.700", "0.075", "0.225"]


def layer_of(mixer: Any) -> Any:
    layer = mixer.build(24).to(torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3) if parameter.dim() == 1 else torch.nn.init.normal_(parameter, 0, 0.3)
    return layer


@pytest.mark.parametrize("documents", [None, TWO_DOCUMENTS], ids=["one document", "two documents"])
@pytest.mark.parametrize(
    "mixer",
    [
        Attention(heads=4, kv_heads=2, head_width=6, window=5),
        NormalizedAttention(heads=4),
        DiffAttention(heads=4, kv_heads=2, depth=1, head_width=4),
        DiffAttentionV2(heads=4, kv_heads=2, head_width=5),
    ],
    ids=lambda mixer: type(mixer).__name__,
)
@torch.no_grad()
def test_maps_times_values_is_what_the_mixer_gives(mixer: Any, documents: Tensor | None) -> None:
    layer, context = layer_of(mixer), Context(torch.arange(12), documents)
    x = torch.randn(2, 12, 24, dtype=torch.float64)
    maps, values = layer.attention_maps(x, context), split_heads(layer.v(x), layer.kv_heads)
    assert maps.shape == (2, 4, 12, 12)
    mixed = maps @ values.repeat_interleave(4 // layer.kv_heads, 1)
    if isinstance(mixer, DiffAttention):
        mixed = layer.norm(mixed) * (1 - layer.lambda_init)
    expected = F.linear(merge_heads(mixed), layer.o.weight)
    torch.testing.assert_close(layer(x, context)[0], expected, rtol=0, atol=1e-12)
    sums = maps.sum(-1)
    if isinstance(mixer, DiffAttention):
        torch.testing.assert_close(sums, (1 - layer.current_lambda().double()).expand_as(sums), rtol=0, atol=1e-12)
    elif isinstance(mixer, DiffAttentionV2):
        torch.testing.assert_close(sums, 1 - layer.current_lambda(x)[..., 0], rtol=0, atol=1e-12)
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["llama-grouped", "ngpt", "diff_transformer", "diff_transformer_v2"])
def test_spans_that_cover_everything_have_all_of_it(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec, length=12)
    documents = TWO_DOCUMENTS
    spans = {"first document": documents == 0, "second": documents == 1}
    found = attention_shares(model, tokens, documents == 1, spans, documents)
    assert len(found.rows) == 3 * 3 * model.spec.blocks[0].mixer.heads
    for row in found.rows:
        if row.span != FIRST:
            assert (row.share, row.magnitude) == pytest.approx((float(row.span == "second"),) * 2, abs=1e-5)
    second = documents.argmax(1)
    only = attention_shares(model, tokens, marked(*enumerate(second.tolist())), spans, documents)
    assert only.mean(FIRST) == pytest.approx(1.0, abs=1e-5)  # a document's first token sees itself alone


def test_what_is_measured_leaves_no_trace() -> None:
    model = model_of("llama")
    tokens = tokens_for(model.spec, length=12)
    before = model(tokens).logits
    attention_shares(model, tokens, marked((0, 3)), {})
    assert torch.equal(model(tokens).logits, before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_measured_is_refused() -> None:
    model = model_of("llama")
    tokens = tokens_for(model.spec, length=12)
    with pytest.raises(InputError, match="queries: no token"):
        attention_shares(model, tokens, marked(), {})
    with pytest.raises(InputError, match=r"noise.*\(2, 12\)"):
        attention_shares(model, tokens, marked((0, 1)), {"noise": torch.zeros(12, dtype=torch.bool)})
    with pytest.raises(InputError, match="queries"):
        attention_shares(model, tokens, marked((0, 1)).float(), {})
