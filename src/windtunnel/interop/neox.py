"""GPT-NeoX and Pythia (`GPTNeoXForCausalLM`): parallel branches with a norm each, q, k and v joined by heads."""

from collections.abc import Collection
from typing import Any

from windtunnel.embedding import Head
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, head_width_of, rope_of, the, the_mixers, turned
from windtunnel.interop.rope import read_rope, write_rope
from windtunnel.interop.weights import Split, Weight, heads_apart, linear, norm, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.residuals import Parallel, PreNorm

_HEAD = "embed_out.weight"


def _read(config: Config) -> LanguageModel:
    width, context = config.whole("hidden_size"), config.whole("max_position_embeddings", 2048)
    heads = config.whole("num_attention_heads")
    norm = LayerNorm(eps=config.number("layer_norm_eps", 1e-5))
    parallel = config.flag("use_parallel_residual", True)
    theta, share = config.number("rotary_emb_base", 10_000.0), config.number("rotary_pct", 0.25)
    block = Block(
        residual=Parallel(norm=norm, own_norm=True) if parallel else PreNorm(norm=norm),
        mixer=Attention(
            heads=heads,
            rope=read_rope(config, width // heads, context, theta, share),
            bias=config.flag("attention_bias", True),
        ),
        mlp=Dense(hidden=config.whole("intermediate_size"), activation=config.activation("hidden_act", "gelu")),
    )
    return LanguageModel(
        vocab=config.whole("vocab_size"),
        width=width,
        context=context,
        blocks=(block,) * config.whole("num_hidden_layers"),
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", False)),
    )


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixer = the_mixers(spec, Attention)[0]
    mlp = the(spec.blocks[0].mlp, Dense, "blocks.0.mlp")
    rope = write_rope(rope_of(mixer), head_width_of(mixer, spec.width), spec.context)
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.blocks),
        "num_attention_heads": mixer.heads,
        "intermediate_size": mlp.hidden,
        "hidden_act": THEIR_ACTIVATIONS[mlp.activation],
        "max_position_embeddings": spec.context,
        "layer_norm_eps": the(spec.norm, LayerNorm, "norm").eps,
        "use_parallel_residual": isinstance(spec.blocks[0].residual, Parallel),
        "attention_bias": mixer.bias,
        "tie_word_embeddings": spec.head.tied,
        "rotary_emb_base": rope["rope_theta"],
        "rotary_pct": rope.get("partial_rotary_factor", 1.0),
        "rope_scaling": rope["rope_scaling"],
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    mixers = the_mixers(spec, Attention)

    def layer(index: int) -> list[Weight]:
        theirs, ours, mixer = f"gpt_neox.layers.{index}", f"blocks.{index}", mixers[index]
        head = head_width_of(mixer, spec.width)
        rows = mixer.heads * head
        turn = turned(mixer.rope, "half", 2 * mixer.heads, head, others=rows)
        apart = (heads_apart(mixer.heads, head), *turn, Split((rows,) * 3))
        two = isinstance(spec.blocks[index].residual, Parallel)
        joined = [f"{ours}.mixer.{each}" for each in "qkv"]
        return [
            *norm(f"{theirs}.input_layernorm", f"{ours}.residual.{'norm' if two else 'mixer_norm'}", bias=True),
            *norm(f"{theirs}.post_attention_layernorm", f"{ours}.residual.mlp_norm", bias=True),
            *linear(f"{theirs}.attention.query_key_value", joined, *apart, bias=mixer.bias),
            *linear(f"{theirs}.attention.dense", f"{ours}.mixer.o", bias=mixer.bias),
            *linear(f"{theirs}.mlp.dense_h_to_4h", f"{ours}.mlp.up", bias=True),
            *linear(f"{theirs}.mlp.dense_4h_to_h", f"{ours}.mlp.down", bias=True),
        ]

    head = [] if spec.head.tied else [weight("lm_head.weight" if "lm_head.weight" in names else _HEAD, "head.weight")]
    return [
        weight("gpt_neox.embed_in.weight", "embedding.weight"),
        *norm("gpt_neox.final_layer_norm", "norm", bias=True),
        *head,
        *every(spec, layer),
    ]


GPT_NEOX = Family(
    name="gpt_neox", architecture="GPTNeoXForCausalLM", read=_read, write=_write, steps=_steps, prefix="gpt_neox."
)
