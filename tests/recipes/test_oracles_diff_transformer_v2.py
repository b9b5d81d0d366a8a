"""The second version of differential attention against a loop over its equations, and its identities."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, tokens_for
from tests.recipes.oracle import largest
from windtunnel.layer import Context
from windtunnel.mixers import Attention, DiffAttentionV2
from windtunnel.mixers.differential_v2 import DiffAttentionV2Layer
from windtunnel.model import LanguageModelLayer

EXACT = 1e-12


def rotated(x: Tensor, theta: float) -> Tensor:
    """Rotary positions of x [b t k] by complex numbers, pairs (i, i + k/2)."""
    half = x.shape[-1] // 2
    position, pair = (torch.arange(count, dtype=torch.float64) for count in (x.shape[1], half))
    angles = position[:, None] * theta ** (-pair / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)


def by_loops(x: Tensor, w: dict[str, Tensor], heads: int, groups: int, theta: float) -> Tensor:
    """Pair after pair and query after query, from the post's equations."""
    width = w["q"].shape[0] // (2 * heads)
    gates = 1 / (1 + torch.exp(-x @ w["lambda_"].T))  # b t h

    def rows(name: str, index: int) -> Tensor:
        part = x @ w[name][index * width : (index + 1) * width].T
        return part if name == "v" else rotated(part, theta)

    def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = []
        for at in range(x.shape[1]):
            scores = (key[:, : at + 1] @ query[:, at, :, None])[..., 0] / math.sqrt(width)
            out.append((scores.softmax(-1)[:, None] @ value[:, : at + 1])[:, 0])
        return torch.stack(out, 1)

    pairs = []
    for pair in range(heads):
        group = pair // (heads // groups)
        key, value = rows("k", group), rows("v", group)
        first, second = (attended(rows("q", 2 * pair + i), key, value) for i in (0, 1))
        pairs.append(first - gates[..., pair : pair + 1] * second)
    return torch.cat(pairs, -1) @ w["o"].T


def matrices(layer: DiffAttentionV2Layer) -> dict[str, Tensor]:
    return {name.split(".")[0]: parameter for name, parameter in layer.named_parameters()}


def layer_of(heads: int, groups: int, width: int, **fields: Any) -> DiffAttentionV2Layer:
    """One layer in float64, weights of order 1."""
    layer = DiffAttentionV2(heads=heads, kv_heads=groups, **fields).build(width).to(torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, parameter.shape[-1] ** -0.5)
    assert isinstance(layer, DiffAttentionV2Layer)
    return layer


def run(layer: DiffAttentionV2Layer, x: Tensor) -> Tensor:
    mixed: Tensor = layer(x, Context(torch.arange(x.shape[1])))[0]
    return mixed


@given(
    groups=st.integers(1, 3),
    repeats=st.integers(1, 3),
    half=st.integers(1, 4),
    length=st.integers(1, 12),
    training=st.booleans(),
)
@settings(max_examples=12)
def test_any_grouping_is_the_loop(groups: int, repeats: int, half: int, length: int, training: bool) -> None:
    rope = wt.recipes.get("diff_transformer_v2")(theta=300.0).blocks[0].mixer.rope  # type: ignore[attr-defined]
    layer = layer_of(groups * repeats, groups, 10, head_width=2 * half, rope=rope)
    x = torch.randn(2, length, 10, dtype=torch.float64)
    with torch.set_grad_enabled(training):
        expected = by_loops(x, matrices(layer), groups * repeats, groups, 300.0)
        torch.testing.assert_close(run(layer, x), expected, rtol=0, atol=EXACT)


def whole_by_loops(model: LanguageModelLayer, tokens: Tensor, theta: float) -> Tensor:
    """The whole model: norms, differential attention, SwiGLU, written out."""

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain

    w = dict(model.named_parameters())
    x = w["embedding.weight"][tokens]
    for index, block in enumerate(model.spec.blocks):
        at = f"blocks.{index}."
        own = {name: w[f"{at}mixer.{name}.weight"] for name in ("q", "k", "v", "lambda_", "o")}
        groups = block.mixer.kv_heads or block.mixer.heads
        mixed = norm(x, w[at + "residual.mixer_norm.weight"])
        x = x + by_loops(mixed, own, block.mixer.heads, groups, theta)
        h = norm(x, w[at + "residual.mlp_norm.weight"])
        gate, up = h @ w[at + "mlp.gate.weight"].T, h @ w[at + "mlp.up.weight"].T
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ w[at + "mlp.down.weight"].T
    head = w.get("head.weight", w["embedding.weight"])
    return norm(x, w["norm.weight"]) @ head.T


@pytest.mark.parametrize(("case", "theta"), [("diff_transformer_v2", 10_000.0), ("diff_transformer_v2-grouped", 500.0)])
def test_the_model_is_the_loop(case: str, theta: float, proof: Proof) -> None:
    model = model_of(case, dtype=torch.float64, layers=2)
    tokens = tokens_for(model.spec, batch=2, length=13)
    weights = dict(model.named_parameters())
    expected = whole_by_loops(model, tokens, theta)
    logits = model(tokens).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=EXACT)
    ours, theirs = (
        torch.autograd.grad(F.cross_entropy(z[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()), list(weights.values()))
        for z in (logits, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=EXACT)
    state, parts = model.initial_state(2), []
    for chunk in tokens.split((4, 1, 1, 5, 2), dim=1):
        out = model(chunk, state=state)
        state = out.state
        parts.append(out.logits)
    decoded = torch.cat(parts, 1)
    torch.testing.assert_close(decoded, expected, rtol=0, atol=EXACT)
    proof(
        "diff_transformer_v2",
        "the post's equations, head by head",
        logits=largest(logits, expected),
        gradients=max(largest(one, other) for one, other in zip(ours, theirs, strict=True)),
        decoding=largest(decoded, expected),
    )


@torch.no_grad()
def test_without_gate_weights_half_of_the_second_map_is_taken_away() -> None:
    """W_λ = 0 gives A₁V - A₂V/2, and with equal queries half of ordinary attention."""
    layer = layer_of(4, 2, 24)
    layer.lambda_.weight.zero_()
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    queries = layer.q.weight.view(4, 2, 6, 24)
    ordinary = Attention(heads=4, kv_heads=2).build(24).to(torch.float64)
    for name in ("k", "v", "o"):
        getattr(ordinary, name).weight.copy_(getattr(layer, name).weight)

    def attended(index: int) -> Tensor:
        ordinary.q.weight.copy_(queries[:, index].reshape(24, 24))
        out: Tensor = ordinary(x, Context(torch.arange(9)))[0]
        return out

    torch.testing.assert_close(run(layer, x), attended(0) - attended(1) / 2, rtol=0, atol=EXACT)
    queries[:, 1] = queries[:, 0]
    torch.testing.assert_close(run(layer, x), attended(0) / 2, rtol=0, atol=EXACT)


@torch.no_grad()
def test_a_closed_gate_leaves_the_baseline() -> None:
    """With λ far below zero the second queries are not felt: the logits of `llama` with copied weights."""
    ours = model_of("diff_transformer_v2", dtype=torch.float64)
    baseline = model_of("llama", dtype=torch.float64)
    for name, parameter in baseline.named_parameters():
        weight = ours.get_parameter(name)
        parameter.copy_(weight.view(4, 2, -1, 64)[:, 0].reshape(64, 64) if name.endswith("mixer.q.weight") else weight)
    tokens = tokens_for(ours.spec)
    for block in ours.blocks.values():
        block.mixer.lambda_.register_forward_hook(lambda *_: torch.full((2, 40, 4), -60.0, dtype=torch.float64))
    torch.testing.assert_close(ours(tokens).logits, baseline(tokens).logits, rtol=0, atol=EXACT)


def test_only_the_queries_grow() -> None:
    """A second query matrix of d², and a row of the gate for each pair; keys, values and output are the baseline's."""
    sizes = {"layers": 2, "width": 64, "vocab": 50, "heads": 4, "kv_heads": 2}
    counts = [
        sum(parameter.numel() for parameter in wt.recipes.get(name)(**sizes).build().parameters())
        for name in ("diff_transformer_v2", "llama")
    ]
    assert counts[0] - counts[1] == 2 * (64 * 64 + 4 * 64)
