"""The linear mixer: what it refuses, GPT-Neo's layer, rotations, and what makes two of its forms one."""

from typing import Any

import pytest
import torch
from torch import Tensor

import windtunnel as wt
from tests.proof import Proof
from windtunnel.errors import InputError
from windtunnel.layer import Context
from windtunnel.mixers import Attention, LinearAttention
from windtunnel.mixers.linear import LinearAttentionLayer, tokens_seen
from windtunnel.positions import Rope

EXACT = 1e-12
FORMS: list[dict[str, Any]] = [
    {},
    {"normalisation": "scaling"},
    *({"normalisation": "kernel", "features": name} for name in ("exp", "softmax", "elu", "relu", "squared_relu")),
]
ROTATED: list[dict[str, Any]] = [{**form, "rope": Rope()} for form in FORMS[1:]]


def layer_of(seed: int = 0, **settings: Any) -> LinearAttentionLayer:
    torch.manual_seed(seed)
    layer = LinearAttention(**{"heads": 2, **settings}).build(12).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5)
    return layer


def context_of(length: int, first: int = 0, documents: Tensor | None = None) -> Context:
    return Context(torch.arange(first, first + length), documents)


@pytest.mark.parametrize("settings", FORMS + ROTATED, ids=str)
@torch.no_grad()
def test_steps_and_documents(settings: dict[str, Any]) -> None:
    layer, x = layer_of(**settings), torch.randn(2, 21, 12, dtype=torch.float64)
    whole, none = layer(x, context_of(21))
    assert none is None
    state, parts, at = layer.initial_state(2, x.device, x.dtype), [], 0
    for chunk in x.split((1, 4, 1, 9, 6), 1):
        y, state = layer(chunk, context_of(chunk.shape[1], at), state)
        parts.append(y)
        at += chunk.shape[1]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=EXACT)
    held = sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert held == 2 * layer.state_bytes(21, 8) == 2 * layer.state_bytes(9000, 8)
    documents = torch.tensor([[0] * 8 + [1] * 13, [0] * 20 + [1]])
    packed, _ = layer(x, context_of(21, documents=documents))
    for row, ids in enumerate(documents):
        for document in (0, 1):
            own = ids == document
            begun = int(own.nonzero()[0]) if layer.spec.by_means else 0
            alone, _ = layer(x[row : row + 1, own], context_of(int(own.sum()), begun))  # rotated where it stood, or not
            torch.testing.assert_close(packed[row, own], alone[0], rtol=0, atol=EXACT)


@torch.no_grad()
def test_gpt_neos_layer(proof: Proof) -> None:
    """Its equations in its own order: softmax of q over features, exp of k, cumulative sums, 1e-6 below."""
    layer, x = layer_of(normalisation="kernel", features="exp"), torch.randn(2, 30, 12, dtype=torch.float64)
    q, k, v = (linear(x).view(2, 30, 2, 6) for linear in (layer.q, layer.k, layer.v))
    keys = k.exp()
    sums = torch.einsum("bthk,bthe->bthke", keys, v).cumsum(1)
    masses = keys.cumsum(1) + 1e-6
    q = q.softmax(-1)
    mixed = torch.einsum("bthk,bthke->bthe", q, sums) / (q * masses).sum(-1, keepdim=True)
    expected, found = layer.o(mixed.flatten(2)), layer(x, context_of(30))[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    proof("linear attention, joint", "GPT-Neo's equations, with its 1e-6 in the denominator", values=error)


@torch.no_grad()
@pytest.mark.parametrize("features", ["elu", "relu", "squared_relu", "exp", "softmax"])
def test_every_feature_map_against_its_table_of_pairs(features: str, proof: Proof) -> None:
    layer, x = layer_of(normalisation="kernel", features=features), torch.randn(1, 25, 12, dtype=torch.float64)
    phi = {
        "elu": lambda y: torch.where(y > 0, y + 1, y.exp()),
        "relu": lambda y: y.clamp(min=0) + 1e-6,
        "squared_relu": lambda y: y.clamp(min=0) ** 2 + 1e-6,
        "exp": torch.exp,
        "softmax": lambda y: y.exp() / y.exp().sum(-1, keepdim=True),
    }[features]
    q, k, v = (linear(x)[0].view(25, 2, 6).transpose(0, 1) for linear in (layer.q, layer.k, layer.v))
    pairs = (phi(q) @ phi(k).transpose(1, 2)).tril()
    expected = layer.o(((pairs / pairs.sum(-1, keepdim=True)) @ v).transpose(0, 1).flatten(1))
    found = layer(x, context_of(25))[0][0]
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    proof(f"linear attention, kernel {features}", "the table of pairs", values=error)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"normalisation": "scaling"}, {"normalisation": "kernel", "features": "elu"}])
def test_a_rotated_numerator_knows_distances_alone(settings: dict[str, Any]) -> None:
    """RoFormer, section 3.3: the same text later in the sequence reads the same."""
    x = torch.randn(1, 9, 12, dtype=torch.float64)
    layer = layer_of(rope=Rope(), **settings)
    far = torch.zeros(1, 1, 12, dtype=torch.float64)
    documents = torch.tensor([[0] * 5 + [1] * 9])
    moved = layer(torch.cat([far.expand(1, 5, 12), x], 1), context_of(14, documents=documents))[0][:, 5:]
    torch.testing.assert_close(moved, layer(x, context_of(9))[0], rtol=0, atol=EXACT)
    swapped = torch.cat([x[:, [1, 0]], x[:, 2:]], 1)
    assert (layer(swapped, context_of(9))[0][:, 2:] - layer(x, context_of(9))[0][:, 2:]).abs().max() > 1e-3
    without = layer_of(**settings)
    torch.testing.assert_close(
        without(swapped, context_of(9))[0][:, 2:], without(x, context_of(9))[0][:, 2:], rtol=0, atol=EXACT
    )


def test_tokens_seen_are_counted_from_the_start_of_the_document() -> None:
    documents = torch.tensor([[4, 4, 4, 9, 9, 2], [1, 1, 1, 1, 1, 1]])
    expected = torch.tensor([[1, 2, 3, 1, 2, 1], [1, 2, 3, 4, 5, 6]])
    assert torch.equal(tokens_seen(context_of(6, documents=documents)), expected)
    assert torch.equal(tokens_seen(context_of(3, first=7)), torch.tensor([[8, 9, 10]]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 16}, ("window", "16", "Attention")),
        ({"features": "elu"}, ("features", "'elu'", "kernel")),
        ({"normalisation": "scaling", "features": "relu"}, ("features", "'relu'", "scaling")),
        ({"rope": Rope()}, ("rope", "softmax")),
        ({"heads": 0}, ("heads", "0")),
        ({"normalisation": "mean"}, ("normalisation", "'mean'", "softmax")),
        ({"eps": -1.0}, ("eps", "-1")),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        LinearAttention(**{"heads": 2, **settings})
    assert all(word in str(caught.value) for word in ("LinearAttention", *words))


def test_a_recipe_passes_the_refusal_on() -> None:
    with pytest.raises(InputError, match="window is 32"):
        wt.recipes.efficient_attention(width=64, layers=1, window=32)


def test_the_same_parameters_as_softmax_attention() -> None:
    names = {name: parameter.shape for name, parameter in layer_of(bias=True).named_parameters()}
    assert names == {n: p.shape for n, p in Attention(heads=2, bias=True).build(12).named_parameters()}
