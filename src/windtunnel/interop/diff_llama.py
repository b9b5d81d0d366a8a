"""DiffLlama (`DiffLlamaForCausalLM`): Llama's blocks with differential attention, first maps of all heads first."""

from collections.abc import Collection
from typing import Any

import torch

from windtunnel.errors import InputError
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, the, the_mixers, turned
from windtunnel.interop.llama import outer_steps, read_body, read_norm
from windtunnel.interop.rope import read_rope, write_rope
from windtunnel.interop.weights import Rows, Weight, linear, norm, weight
from windtunnel.mixers import DiffAttention
from windtunnel.mlps import Gated
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.residuals import PreNorm


def _read(config: Config) -> LanguageModel:
    width, context = config.whole("hidden_size"), config.whole("max_position_embeddings", 2048)
    heads = config.whole("num_attention_heads")
    groups = config.whole("num_key_value_heads", heads)
    if heads % 2 or groups % 2:
        raise config.refusal("num_key_value_heads", f"{groups} and num_attention_heads {heads} must be even")
    config.only("attention_bias", False)
    config.any("lambda_std_dev")  # how training starts
    head_width = config.whole("head_dim", width // heads)
    norm = read_norm(config, 1e-5)
    mlp = Gated(hidden=config.whole("intermediate_size"), activation=config.activation("hidden_act", "silu"))

    def block(depth: int) -> Block:
        mixer = DiffAttention(
            heads=heads // 2,
            depth=depth,
            head_width=None if head_width * heads == width else head_width,
            kv_heads=groups // 2,
            rope=read_rope(config, head_width, context),
            gain=False,
            eps=norm.eps,
        )
        return Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=mlp)

    return read_body(config, context, tuple(block(depth) for depth in range(config.whole("num_hidden_layers"))))


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixer = the_mixers(spec, DiffAttention)[0]
    mlp = the(spec.blocks[0].mlp, Gated, "blocks.0.mlp")
    head_width = _head_width(mixer, spec.width)
    if head_width * 2 * mixer.heads != spec.width:
        raise InputError(f"heads of {head_width}, {2 * mixer.heads} of them, must have the width {spec.width} in all")
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.blocks),
        "num_attention_heads": 2 * mixer.heads,
        "num_key_value_heads": 2 * (mixer.kv_heads or mixer.heads),
        "head_dim": head_width,
        "intermediate_size": mlp.hidden,
        "hidden_act": THEIR_ACTIVATIONS[mlp.activation],
        "max_position_embeddings": spec.context,
        "rms_norm_eps": the(spec.norm, RMSNorm, "norm").eps,
        "tie_word_embeddings": spec.head.tied,
        **write_rope(the(mixer.rope, Rope, "blocks.0.mixer.rope"), head_width, spec.context),
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    mixers = the_mixers(spec, DiffAttention)

    def layer(index: int) -> list[Weight]:
        theirs, ours, mixer = f"model.layers.{index}", f"blocks.{index}", mixers[index]
        groups, width = mixer.kv_heads or mixer.heads, _head_width(mixer, spec.width)
        steps = [
            norm(f"{theirs}.input_layernorm", f"{ours}.residual.mixer_norm"),
            norm(f"{theirs}.post_attention_layernorm", f"{ours}.residual.mlp_norm"),
            linear(f"{theirs}.self_attn.v_proj", f"{ours}.mixer.v", _pairs(groups, width)),
            linear(f"{theirs}.self_attn.o_proj", f"{ours}.mixer.o"),
        ]
        for name, heads in (("q", mixer.heads), ("k", groups)):
            turn = turned(mixer.rope, "half", 2 * heads, width)
            steps.append(linear(f"{theirs}.self_attn.{name}_proj", f"{ours}.mixer.{name}", _pairs(heads, width), *turn))
        steps += [linear(f"{theirs}.mlp.{name}_proj", f"{ours}.mlp.{name}") for name in ("gate", "up", "down")]
        lambdas = [f"lambda_{name}" for name in ("q1", "k1", "q2", "k2")]
        steps.append([weight(f"{theirs}.self_attn.{name}", f"{ours}.mixer.{name}") for name in lambdas])
        return [step for each in steps for step in each]

    return [*outer_steps(spec), *every(spec, layer)]


def _pairs(heads: int, head_width: int) -> Rows:
    """Theirs are the first maps of all heads, then the second; ours have both maps of a head side by side."""
    rows = torch.arange(2 * heads * head_width).view(2, heads, head_width)
    return Rows(tuple(rows.transpose(0, 1).flatten().tolist()))


def _head_width(mixer: DiffAttention, width: int) -> int:
    return mixer.head_width or width // (2 * mixer.heads)


DIFF_LLAMA = Family(
    name="diffllama", architecture="DiffLlamaForCausalLM", read=_read, write=_write, steps=_steps, prefix="model."
)
