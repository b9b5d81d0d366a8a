"""Whole models with experts against `LlamaForCausalLM` whose MLPs are the papers' equations, token by token.

Attention, norms, rotations and head are those of `transformers`; the experts below are a loop over tokens and their
experts, and share nothing with the library. In evaluation, where every router is deterministic and serves every token.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tests.proof import Proof
from tests.recipes.cases import model_of
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from tests.recipes.test_oracles_llama import NAMES as LLAMA
from windtunnel.mixers import Attention
from windtunnel.mlps import Experts
from windtunnel.model import LanguageModel

Gating = Callable[[Tensor], dict[int, Tensor]]  # one token's router logits [e] -> its experts and how each counts
ORACLE = "transformers `LlamaForCausalLM`, experts token by token"


def switch(logits: Tensor) -> dict[int, Tensor]:
    """Fedus et al. 2021, eq. 1-2: y = p_i(x) E_i(x) for the largest p_i."""
    probabilities = logits.exp() / logits.exp().sum()
    best = int(logits.argmax())
    return {best: probabilities[best]}


def two_best(logits: Tensor) -> dict[int, Tensor]:
    """GShard, algorithm 1, lines 10-13, without capacity; Mixtral's softmax over the chosen logits is the same."""
    first, second = sorted(range(len(logits)), key=lambda expert: -logits[expert].item())[:2]
    total = logits[first].exp() + logits[second].exp()
    return {expert: logits[expert].exp() / total for expert in (first, second)}


def keep_top_k(logits: Tensor) -> dict[int, Tensor]:
    """Shazeer et al. 2017, eq. 3 and 5 without noise: all others at -infinity, then a softmax; k = 4."""
    floor = sorted(logits.tolist())[-4]
    gates = logits.masked_fill(logits < floor, float("-inf")).softmax(-1)
    return {expert: gates[expert] for expert in gates.nonzero().flatten().tolist()}


class Mixture(nn.Module):
    """y = Σ g_e(x) down_e act(up_e x), gated by act(gate_e x) where there is a gate."""

    def __init__(self, spec: Experts, width: int, gating: Gating, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gating, self.activation = gating, activation
        self.router = nn.Parameter(torch.empty(spec.experts, width))
        self.up = nn.Parameter(torch.empty(spec.experts, spec.hidden, width))
        self.down = nn.Parameter(torch.empty(spec.experts, width, spec.hidden))
        self.gate = nn.Parameter(torch.empty(spec.experts, spec.hidden, width)) if spec.gated else None

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """seen: what the router looks at, x unless given."""
        rows, looked_at = x.flatten(0, 1), (x if seen is None else seen).flatten(0, 1)
        return torch.stack([self._token(*pair) for pair in zip(rows, looked_at, strict=True)]).view_as(x)

    def _token(self, x: Tensor, seen: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for expert, weight in self.gating(self.router @ seen).items():
            up = self.up[expert] @ x
            inner = self.activation(up) if self.gate is None else self.activation(self.gate[expert] @ x) * up
            total = total + weight * (self.down[expert] @ inner)
        return total


class ReLU(nn.Module):
    """down relu(up x), the dense blocks between sparse ones."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(hidden, width))
        self.down = nn.Parameter(torch.empty(width, hidden))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.up.T).relu() @ self.down.T


class Rewired(LlamaDecoderLayer):
    """A block that decides before attention ("early", "early-own-norm"), or adds both branches at once."""

    route = "early"
    router_layernorm: nn.Module

    def forward(self, hidden_states: Tensor, **rest: Any) -> Tensor:  # type: ignore[override]
        normed = self.input_layernorm(hidden_states)
        mixed, _ = self.self_attn(hidden_states=normed, **rest)
        if self.route == "parallel":
            return hidden_states + mixed + self.mlp(normed)  # type: ignore[no-any-return]
        seen = normed if self.route == "early" else self.router_layernorm(hidden_states)
        u = hidden_states + mixed
        return u + self.mlp(self.post_attention_layernorm(u), seen)  # type: ignore[no-any-return]


def theirs(spec: LanguageModel, gating: Gating, activation: Callable[[Tensor], Tensor]) -> LlamaForCausalLM:
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, Attention)
    assert mixer.rope is not None
    config = LlamaConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        intermediate_size=1,
        num_hidden_layers=len(spec.blocks),
        num_attention_heads=mixer.heads,
        num_key_value_heads=mixer.kv_heads or mixer.heads,
        head_dim=mixer.head_width or spec.width // mixer.heads,
        rms_norm_eps=spec.norm.eps,  # type: ignore[union-attr]
        tie_word_embeddings=spec.head.tied,
        rope_parameters={"rope_type": "default", "rope_theta": mixer.rope.theta},
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    for layer, block in zip(model.model.layers, spec.blocks, strict=True):
        mlp = block.mlp
        sparse = isinstance(mlp, Experts)
        layer.mlp = Mixture(mlp, spec.width, gating, activation) if sparse else ReLU(mlp.hidden, spec.width)  # type: ignore
    return model


def mapped(weights: Weights) -> dict[str, Tensor]:
    """The noise of `sparsely_gated_moe` is drawn in training alone, and has no counterpart."""
    names = {name: own for name, own in LLAMA.items() if ".mlp." not in name}
    if "blocks.0.residual.norm.weight" in weights:
        names["model.layers.*.input_layernorm.weight"] = "blocks.*.residual.norm.weight"
    names["model.layers.*.router_layernorm.weight"] = "blocks.*.residual.router_norm.weight"
    found = renamed(weights, {name: own for name, own in names.items() if own.replace("*", "0") in weights})
    for name, weight in weights.items():
        if ".mlp." in name and not name.endswith(".noise"):
            _, layer, _, part, *_ = name.split(".")
            found[f"model.layers.{layer}.mlp.{part}"] = weight
    return found


RECIPES: dict[str, tuple[str, Gating, Callable[[Tensor], Tensor], dict[str, Any]]] = {
    "switch": ("switch", switch, F.relu, {}),
    "switch, all sparse": ("switch", switch, F.relu, {"every": 1, "experts": 3, "hidden": 37, "vocab": 41}),
    "gshard": ("gshard", two_best, F.relu, {}),
    "gshard, all sparse": ("gshard", two_best, F.relu, {"every": 1, "experts": 5, "hidden": 21, "layers": 2}),
    "rumour": ("gpt4_rumour", two_best, F.gelu, {}),
    "rumour of 8": ("gpt4_rumour", two_best, F.gelu, {"experts": 8, "layers": 1}),
    "sparsely gated": ("sparsely_gated_moe", keep_top_k, F.relu, {"layers": 2}),
    "routed late": ("router_first", two_best, F.silu, {"route": "late"}),
}


@pytest.mark.parametrize(("name", "gating", "activation", "settings"), RECIPES.values(), ids=RECIPES)
def test_values_gradients_and_decoding(
    name: str, gating: Gating, activation: Callable[[Tensor], Tensor], settings: dict[str, Any], proof: Proof
) -> None:
    ours = model_of(name, dtype=torch.float64, **settings)
    _spread(ours)
    other = theirs(ours.spec, gating, activation)
    proof(name, ORACLE, **agree(ours, other, mapped, without=(".noise",)), **decode_alike(ours, other, mapped))


@pytest.mark.parametrize("route", ["early", "early-own-norm", "parallel"])
def test_decisions_before_attention(route: str, proof: Proof) -> None:
    ours = model_of("router_first", dtype=torch.float64, route=route)
    other = theirs(ours.spec, two_best, F.silu)
    for layer in other.model.layers:
        layer.__class__ = Rewired
        layer.route = route
        if route == "early-own-norm":
            layer.router_layernorm = type(layer.input_layernorm)(
                ours.spec.width, layer.input_layernorm.variance_epsilon
            )
        if route == "parallel":
            del layer.post_attention_layernorm
    proof("router_first", ORACLE, **agree(ours, other, mapped), **decode_alike(ours, other, mapped))


def _spread(model: Any) -> None:
    """Routers that start at zero cannot tell experts apart."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("router.weight") and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))
