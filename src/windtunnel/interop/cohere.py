"""Cohere's Command R (`CohereForCausalLM`): a parallel gated block, LayerNorm without bias, scaled logits."""

from collections.abc import Collection
from typing import Any

from windtunnel.embedding import Head
from windtunnel.init import FanIn
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, head_width_of, rope_of, the, the_mixers, turned
from windtunnel.interop.rope import read_rope, write_rope
from windtunnel.interop.weights import Weight, linear, norm, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Gated
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.residuals import Parallel


def _read(config: Config) -> LanguageModel:
    width, context = config.whole("hidden_size"), config.whole("max_position_embeddings", 8192)
    heads = config.whole("num_attention_heads")
    norm = LayerNorm(eps=config.number("layer_norm_eps", 1e-5), bias=False)
    config.only("use_qk_norm", False)
    block = Block(
        residual=Parallel(norm=norm),
        mixer=Attention(
            heads=heads,
            kv_heads=config.whole("num_key_value_heads", heads),
            rope=read_rope(config, width // heads, context, 500_000.0, layout="interleaved"),
            bias=config.flag("attention_bias", False),
        ),
        mlp=Gated(hidden=config.whole("intermediate_size"), activation=config.activation("hidden_act", "silu")),
    )
    return LanguageModel(
        vocab=config.whole("vocab_size"),
        width=width,
        context=context,
        blocks=(block,) * config.whole("num_hidden_layers"),
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", True), scale=config.number("logit_scale", 0.0625)),
        initial=FanIn(),
    )


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixer = the_mixers(spec, Attention)[0]
    mlp = the(spec.blocks[0].mlp, Gated, "blocks.0.mlp")
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.blocks),
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.kv_heads or mixer.heads,
        "intermediate_size": mlp.hidden,
        "hidden_act": THEIR_ACTIVATIONS[mlp.activation],
        "max_position_embeddings": spec.context,
        "layer_norm_eps": the(spec.norm, LayerNorm, "norm").eps,
        "logit_scale": spec.head.scale,
        "attention_bias": mixer.bias,
        "tie_word_embeddings": spec.head.tied,
        **write_rope(rope_of(mixer), head_width_of(mixer, spec.width), spec.context),
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    mixers = the_mixers(spec, Attention)

    def layer(index: int) -> list[Weight]:
        theirs, ours, mixer = f"model.layers.{index}", f"blocks.{index}", mixers[index]
        steps = [norm(f"{theirs}.input_layernorm", f"{ours}.residual.norm")]
        for name, heads in (("q", mixer.heads), ("k", mixer.kv_heads or mixer.heads), ("v", None), ("o", None)):
            head = head_width_of(mixer, spec.width)
            turn = turned(mixer.rope, "interleaved", heads, head) if heads is not None else ()
            steps.append(linear(f"{theirs}.self_attn.{name}_proj", f"{ours}.mixer.{name}", *turn, bias=mixer.bias))
        steps += [linear(f"{theirs}.mlp.{name}_proj", f"{ours}.mlp.{name}") for name in ("gate", "up", "down")]
        return [step for each in steps for step in each]

    head = [] if spec.head.tied else [weight("lm_head.weight", "head.weight")]
    return [
        weight("model.embed_tokens.weight", "embedding.weight"),
        *norm("model.norm", "norm"),
        *head,
        *every(spec, layer),
    ]


COHERE = Family(
    name="cohere", architecture="CohereForCausalLM", read=_read, write=_write, steps=_steps, prefix="model."
)
