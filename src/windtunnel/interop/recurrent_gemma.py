"""RecurrentGemma (`RecurrentGemmaForCausalLM`): Griffin with scaled embeddings and bounded logits."""

import math
from collections.abc import Collection
from itertools import cycle, islice
from typing import Any

import torch

from windtunnel.embedding import Embedding, Head
from windtunnel.errors import InputError
from windtunnel.init import DepthFanIn
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, head_width_of, rope_of, the, turned
from windtunnel.interop.rope import read_rope, write_rope
from windtunnel.interop.weights import AddOne, Flatten, Squeeze, Weight, linear, norm, weight
from windtunnel.mixers import RGLRU, Attention, Mixer, Recurrent
from windtunnel.mlps import Gated
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.residuals import PreNorm

_CONTEXT = 8192  # nothing bounds it; the released models were trained at this
_KINDS = {"recurrent", "attention"}


def _read(config: Config) -> LanguageModel:
    width, heads = config.whole("hidden_size", 2560), config.whole("num_attention_heads", 10)
    layers, context = config.whole("num_hidden_layers", 26), config.whole("max_position_embeddings", _CONTEXT)
    kinds = config.any("block_types", ["recurrent", "recurrent", "attention"])
    if not isinstance(kinds, list) or not kinds or set(kinds) - _KINDS:
        raise config.refusal("block_types", f"must be a list of recurrent and attention, got {kinds!r}")
    config.any("_block_types")
    config.only("head_dim", width // heads)
    for name in ("w_init_variance_scale", "final_w_init_variance_scale"):  # how training starts
        config.any(name)
    mixers: dict[str, Mixer] = {
        "recurrent": Recurrent(
            recurrent_width=config.whole("lru_width", width),
            taps=config.whole("conv1d_width", 4),
            recurrence=RGLRU(blocks=heads),
        ),
        "attention": Attention(
            heads=heads,
            kv_heads=config.whole("num_key_value_heads", heads),
            rope=read_rope(config, width // heads, context, share=0.5),
            window=config.whole("attention_window_size", 2048),
            bias=config.flag("attention_bias", False),
            output_bias=True,
        ),
    }
    norm = RMSNorm(eps=config.number("rms_norm_eps", 1e-6))
    mlp = Gated(
        hidden=config.whole("intermediate_size", 3 * 2560) // 2,
        activation=config.activation("hidden_activation", "gelu_pytorch_tanh"),
        bias=True,
    )
    order = islice(cycle(kinds), layers)
    return LanguageModel(
        vocab=config.whole("vocab_size", 256_000),
        width=width,
        context=context,
        embedding=Embedding(scale=_embedding_scale(width)),
        blocks=tuple(Block(residual=PreNorm(norm=norm), mixer=mixers[kind], mlp=mlp) for kind in order),
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", True), soft_cap=config.number("logits_soft_cap", 30.0)),
        initial=DepthFanIn(),
    )


def _embedding_scale(width: int) -> float:
    """sqrt(width) in bfloat16, as theirs."""
    return float(torch.tensor(math.sqrt(width), dtype=torch.bfloat16).item())


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixers = [block.mixer for block in spec.blocks] if isinstance(spec, LanguageModel) else []
    recurrent = next((mixer for mixer in mixers if isinstance(mixer, Recurrent)), None)
    attention = next((mixer for mixer in mixers if isinstance(mixer, Attention)), None)
    if recurrent is None or attention is None:
        raise InputError(
            "blocks are not Recurrent and Attention in turn (transformers cannot decode with one of them alone)"
        )
    mlp = the(spec.blocks[0].mlp, Gated, "blocks.0.mlp")
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.blocks),
        "num_attention_heads": attention.heads,
        "intermediate_size": 2 * mlp.hidden,
        "hidden_activation": THEIR_ACTIVATIONS[mlp.activation],
        "lru_width": recurrent.recurrent_width,
        "conv1d_width": recurrent.taps,
        "block_types": ["attention" if isinstance(mixer, Attention) else "recurrent" for mixer in mixers],
        "logits_soft_cap": spec.head.soft_cap,
        "rms_norm_eps": the(spec.norm, RMSNorm, "norm").eps,
        "max_position_embeddings": spec.context,
        "tie_word_embeddings": spec.head.tied,
        "num_key_value_heads": attention.kv_heads or attention.heads,
        "attention_window_size": attention.window,
        "attention_bias": attention.bias,
        **write_rope(rope_of(attention), head_width_of(attention, spec.width), spec.context),
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    def layer(index: int) -> list[Weight]:
        theirs, ours, mixer = f"model.layers.{index}", f"blocks.{index}", spec.blocks[index].mixer
        mixed = _recurrent_steps if isinstance(mixer, Recurrent) else _attention_steps
        gated = [
            linear(f"{theirs}.mlp_block.{each}_proj", f"{ours}.mlp.{each}", bias=True)
            for each in ("gate", "up", "down")
        ]
        return [
            *norm(f"{theirs}.temporal_pre_norm", f"{ours}.residual.mixer_norm", AddOne()),
            *norm(f"{theirs}.channel_pre_norm", f"{ours}.residual.mlp_norm", AddOne()),
            *mixed(mixer, f"{theirs}.temporal_block", f"{ours}.mixer", spec.width),
            *(step for steps in gated for step in steps),
        ]

    head = [] if spec.head.tied else [weight("lm_head.weight", "head.weight")]
    return [
        weight("model.embed_tokens.weight", "embedding.weight"),
        *norm("model.final_norm", "norm", AddOne()),
        *head,
        *every(spec, layer),
    ]


def _recurrent_steps(mixer: Any, theirs: str, ours: str, width: int) -> list[Weight]:
    gates = [
        weight(f"{theirs}.rg_lru.{one}_weight", f"{ours}.recurrence.{other}.weight")
        for one, other in (("recurrent_gate", "decay_gate"), ("input_gate", "input_gate"))
    ]
    biases = [
        weight(f"{theirs}.rg_lru.{one}_bias", f"{ours}.recurrence.{other}.bias", Flatten(mixer.recurrence.blocks))
        for one, other in (("recurrent_gate", "decay_gate"), ("input_gate", "input_gate"))
    ]
    return [
        *linear(f"{theirs}.linear_y", f"{ours}.y", bias=True),
        *linear(f"{theirs}.linear_x", f"{ours}.x", bias=True),
        *linear(f"{theirs}.linear_out", f"{ours}.o", bias=True),
        weight(f"{theirs}.conv_1d.weight", f"{ours}.conv.weight", Squeeze(1)),
        weight(f"{theirs}.conv_1d.bias", f"{ours}.conv.bias"),
        weight(f"{theirs}.rg_lru.recurrent_param", f"{ours}.recurrence.decay"),
        *gates,
        *biases,
    ]


def _attention_steps(mixer: Any, theirs: str, ours: str, width: int) -> list[Weight]:
    attention = the(mixer, Attention, ours)
    steps = [linear(f"{theirs}.o_proj", f"{ours}.o", bias=True)]
    steps.append(linear(f"{theirs}.v_proj", f"{ours}.v", bias=attention.bias))
    for name, heads in (("q", attention.heads), ("k", attention.kv_heads or attention.heads)):
        turn = turned(attention.rope, "half", heads, head_width_of(attention, width))
        steps.append(linear(f"{theirs}.{name}_proj", f"{ours}.{name}", *turn, bias=attention.bias))
    return [step for each in steps for step in each]


RECURRENT_GEMMA = Family(
    name="recurrent_gemma",
    architecture="RecurrentGemmaForCausalLM",
    read=_read,
    write=_write,
    steps=_steps,
    prefix="model.",
)
