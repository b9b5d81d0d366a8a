"""Mixtral (`MixtralForCausalLM`): Llama's blocks with experts for MLPs."""

from collections.abc import Collection
from typing import Any

from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, the, the_mixers
from windtunnel.interop.llama import attention_steps, outer_steps, read_body, read_norm, write_body
from windtunnel.interop.rope import read_rope
from windtunnel.interop.weights import Halves, Stack, Weight, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Experts, TopK
from windtunnel.model import Block, LanguageModel
from windtunnel.residuals import PreNorm


def _read(config: Config) -> LanguageModel:
    width, context = config.whole("hidden_size"), config.whole("max_position_embeddings", 131_072)
    heads, layers = config.whole("num_attention_heads"), config.whole("num_hidden_layers")
    head_width = config.whole("head_dim", width // heads)
    choices = config.whole("num_experts_per_tok", 2)
    config.any("router_jitter_noise")  # training's alone
    balance = config.number("router_aux_loss_coef", 0.001) / layers
    block = Block(
        residual=PreNorm(norm=read_norm(config, 1e-5)),
        mixer=Attention(
            heads=heads,
            head_width=None if head_width * heads == width else head_width,
            kv_heads=config.whole("num_key_value_heads", 8),
            rope=read_rope(config, head_width, context, 1e6),
            window=config.maybe_whole("sliding_window"),
        ),
        mlp=Experts(
            experts=config.whole("num_local_experts", 8),
            hidden=config.whole("intermediate_size"),
            router=TopK(choices=choices, renormalise=choices > 1, balance=balance),
            activation=config.activation("hidden_act", "silu"),
        ),
    )
    if choices == 1:
        raise config.refusal("num_experts_per_tok", "is 1: its gate would be 1 whatever the router says; not carried")
    return read_body(config, context, (block,) * layers)


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixer = the_mixers(spec, Attention)[0]
    mlp = the(spec.blocks[0].mlp, Experts, "blocks.0.mlp")
    router = the(mlp.router, TopK, "blocks.0.mlp.router")
    return {
        **write_body(spec, mixer),
        "intermediate_size": mlp.hidden,
        "hidden_act": THEIR_ACTIVATIONS[mlp.activation],
        "sliding_window": mixer.window,
        "num_local_experts": mlp.experts,
        "num_experts_per_tok": router.choices,
        "router_aux_loss_coef": router.balance * len(spec.blocks),
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    """By experts as in all files, or joined as in the modules of transformers 5."""
    joined = any(name.endswith(".experts.gate_up_proj") for name in names)

    def layer(index: int) -> list[Weight]:
        return [*attention_steps(spec, index), *(_joined(index) if joined else _by_experts(spec, index))]

    return [*outer_steps(spec), *every(spec, layer)]


def _by_experts(spec: LanguageModel, index: int) -> list[Weight]:
    theirs, ours = f"model.layers.{index}.block_sparse_moe", f"blocks.{index}.mlp"
    experts = the(spec.blocks[index].mlp, Experts, ours).experts
    parts = {"gate": "w1", "up": "w3", "down": "w2"}
    return [
        weight(f"{theirs}.gate.weight", f"{ours}.router.weight"),
        *(
            weight([f"{theirs}.experts.{expert}.{w}.weight" for expert in range(experts)], f"{ours}.{part}", Stack())
            for part, w in parts.items()
        ),
    ]


def _joined(index: int) -> list[Weight]:
    theirs, ours = f"model.layers.{index}.mlp", f"blocks.{index}.mlp"
    return [
        weight(f"{theirs}.gate.weight", f"{ours}.router.weight"),
        weight(f"{theirs}.experts.gate_up_proj", [f"{ours}.gate", f"{ours}.up"], Halves()),
        weight(f"{theirs}.experts.down_proj", f"{ours}.down"),
    ]


MIXTRAL = Family(
    name="mixtral", architecture="MixtralForCausalLM", read=_read, write=_write, steps=_steps, prefix="model."
)
