"""Llama against `transformers.LlamaForCausalLM`."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from windtunnel.mixers import Attention
from windtunnel.mlps import Gated
from windtunnel.model import LanguageModel

ORACLE = "transformers `LlamaForCausalLM`"
NAMES = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
    "model.layers.*.input_layernorm.weight": "blocks.*.residual.mixer_norm.weight",
    "model.layers.*.post_attention_layernorm.weight": "blocks.*.residual.mlp_norm.weight",
    **{f"model.layers.*.self_attn.{each}_proj.weight": f"blocks.*.mixer.{each}.weight" for each in "qkvo"},
    **{f"model.layers.*.mlp.{each}_proj.weight": f"blocks.*.mlp.{each}.weight" for each in ("gate", "up", "down")},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "multi-head": {},
    "grouped": {"kv_heads": 2, "theta": 500_000.0, "eps": 1e-5},
    "multi-query": {"kv_heads": 1},
    "tied": {"tied": True},
    "odd sizes": {"width": 66, "heads": 3, "kv_heads": 3, "head_width": 10, "hidden": 37, "vocab": 41, "layers": 1},
}


def theirs(spec: LanguageModel) -> LlamaForCausalLM:
    mixer, mlp = spec.blocks[0].mixer, spec.blocks[0].mlp
    assert isinstance(mixer, Attention)
    assert isinstance(mlp, Gated)
    assert mixer.rope is not None
    config = LlamaConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        intermediate_size=mlp.hidden,
        num_hidden_layers=len(spec.blocks),
        num_attention_heads=mixer.heads,
        num_key_value_heads=mixer.kv_heads or mixer.heads,
        head_dim=mixer.head_width or spec.width // mixer.heads,
        rms_norm_eps=spec.norm.eps,  # type: ignore[union-attr]
        tie_word_embeddings=spec.head.tied,
        rope_parameters={"rope_type": "default", "rope_theta": mixer.rope.theta},
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def mapped(weights: Weights) -> dict[str, Any]:
    return renamed(weights, {theirs: ours for theirs, ours in NAMES.items() if "*" in ours or ours in weights})


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_values_and_gradients(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("llama", dtype=torch.float64, **settings)
    proof("llama", ORACLE, **agree(ours, theirs(ours.spec), mapped))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cached_decoding(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("llama", dtype=torch.float64, **settings)
    proof("llama", ORACLE, **decode_alike(ours, theirs(ours.spec), mapped))


def test_the_baseline_of_gpt_sizes_has_their_parameters() -> None:
    spec = wt.recipes.get("llama")(layers=2, width=64, heads=4, hidden=256, vocab=100)
    assert sum(p.numel() for p in spec.build().parameters()) == theirs(spec).num_parameters()
