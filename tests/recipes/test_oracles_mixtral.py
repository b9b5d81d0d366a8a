"""Mixtral against `transformers.MixtralForCausalLM`."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, tokens_for
from tests.recipes.oracle import Weights, agree, decode_alike, near, renamed
from tests.recipes.test_oracles_llama import NAMES as LLAMA
from windtunnel.ledger import count
from windtunnel.mixers import Attention
from windtunnel.mlps import Experts, TopK
from windtunnel.model import LanguageModel

NAMES = {
    **{theirs: ours for theirs, ours in LLAMA.items() if ".mlp." not in theirs},
    "model.layers.*.mlp.gate.weight": "blocks.*.mlp.router.weight",
    "model.layers.*.mlp.experts.down_proj": "blocks.*.mlp.down",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "two of eight": {"kv_heads": 2},
    "three of five": {"experts": 5, "choices": 3, "width": 66, "heads": 3, "kv_heads": 3, "hidden": 37, "vocab": 41},
    "all": {"experts": 2, "layers": 1},
}


def theirs(spec: LanguageModel) -> MixtralForCausalLM:
    mixer, mlp = spec.blocks[0].mixer, spec.blocks[0].mlp
    assert isinstance(mixer, Attention)
    assert isinstance(mlp, Experts)
    assert isinstance(mlp.router, TopK)
    assert mixer.rope is not None
    config = MixtralConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        intermediate_size=mlp.hidden,
        num_hidden_layers=len(spec.blocks),
        num_attention_heads=mixer.heads,
        num_key_value_heads=mixer.kv_heads or mixer.heads,
        head_dim=spec.width // mixer.heads,
        num_local_experts=mlp.experts,
        num_experts_per_tok=mlp.router.choices,
        rms_norm_eps=spec.norm.eps,  # type: ignore[union-attr]
        sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": mixer.rope.theta},
        attn_implementation="eager",
        experts_implementation="eager",
    )
    return MixtralForCausalLM(config)


def mapped(weights: Weights) -> dict[str, Tensor]:
    found = renamed(weights, NAMES)
    for name in [name for name in weights if name.endswith("mlp.gate")]:
        layer = name.split(".")[1]
        both = torch.cat([weights[name], weights[name.replace("gate", "up")]], dim=1)
        found[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = both
    return found


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_values_gradients_and_decoding(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("mixtral", dtype=torch.float64, **settings)
    found = {**agree(ours, theirs(ours.spec), mapped), **decode_alike(ours, theirs(ours.spec), mapped)}
    proof("mixtral", "transformers MixtralForCausalLM", **found)


def test_the_balance_loss_of_one_layer_is_theirs(proof: Proof) -> None:
    """Theirs pools the layers, so they are the same with one."""
    ours = model_of("mixtral", dtype=torch.float64, layers=1, balance=1.0)
    tokens = tokens_for(ours.spec)
    other = theirs(ours.spec).to(torch.float64)
    other.load_state_dict(mapped(dict(ours.named_parameters())))
    logits = other(tokens, output_router_logits=True).router_logits
    loss = ours.loss(tokens, tokens).losses["blocks.0.balance_loss"]
    error = near(loss, load_balancing_loss_func(logits, 8, 2).double(), 1e-6, "balance loss")
    proof("mixtral", "transformers load_balancing_loss_func", loss=error)


def test_published_active_parameters() -> None:
    with torch.device("meta"):
        found = count(wt.recipes.get("mixtral")(size="8x7b").build())
    assert found.n_total == 46_702_792_704
    assert found.n_active + found.n_emb + (found.n_body - _matrices(found)) == 12_879_925_248  # published as 12.9B


def _matrices(found: Any) -> int:
    return int(found.n_matmul - found.n_unemb)
