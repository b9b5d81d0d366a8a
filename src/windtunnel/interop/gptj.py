"""GPT-J (`GPTJForCausalLM`): a parallel block, neighbouring pairs of part of each head rotated, a head with a bias."""

from collections.abc import Collection
from typing import Any

from windtunnel.embedding import Head
from windtunnel.init import MeshTransformer
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, head_width_of, rope_of, the, the_mixers, turned
from windtunnel.interop.weights import Weight, linear, norm, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Rope
from windtunnel.residuals import Parallel


def _read(config: Config) -> LanguageModel:
    width = config.whole("n_embd", 4096)
    norm = LayerNorm(eps=config.number("layer_norm_epsilon", 1e-5))
    config.only("scale_attn_weights", True)
    config.any("rotary")
    rope = Rope(layout="interleaved", width=config.whole("rotary_dim", 64))
    block = Block(
        residual=Parallel(norm=norm),
        mixer=Attention(heads=config.whole("n_head", 16), rope=rope),
        mlp=Dense(
            hidden=config.whole("n_inner", 4 * width), activation=config.activation("activation_function", "gelu_new")
        ),
    )
    config.only("tie_word_embeddings", False)
    return LanguageModel(
        vocab=config.whole("vocab_size", 50400),
        width=width,
        context=config.whole("n_positions", 2048),
        blocks=(block,) * config.whole("n_layer", 28),
        norm=norm,
        head=Head(bias=True),
        initial=MeshTransformer(),
    )


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixer = the_mixers(spec, Attention)[0]
    mlp = the(spec.blocks[0].mlp, Dense, "blocks.0.mlp")
    return {
        "vocab_size": spec.vocab,
        "n_embd": spec.width,
        "n_layer": len(spec.blocks),
        "n_head": mixer.heads,
        "n_inner": mlp.hidden,
        "n_positions": spec.context,
        "rotary_dim": rope_of(mixer).width or head_width_of(mixer, spec.width),
        "activation_function": "gelu_new" if mlp.activation == "gelu_tanh" else THEIR_ACTIVATIONS[mlp.activation],
        "layer_norm_epsilon": the(spec.norm, LayerNorm, "norm").eps,
        "tie_word_embeddings": False,
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    mixer = the_mixers(spec, Attention)[0]
    turn = turned(mixer.rope, "interleaved", mixer.heads, head_width_of(mixer, spec.width))

    def layer(index: int) -> list[Weight]:
        theirs, ours = f"transformer.h.{index}", f"blocks.{index}"
        return [
            *norm(f"{theirs}.ln_1", f"{ours}.residual.norm", bias=True),
            *linear(f"{theirs}.attn.q_proj", f"{ours}.mixer.q", *turn),
            *linear(f"{theirs}.attn.k_proj", f"{ours}.mixer.k", *turn),
            *linear(f"{theirs}.attn.v_proj", f"{ours}.mixer.v"),
            *linear(f"{theirs}.attn.out_proj", f"{ours}.mixer.o"),
            *linear(f"{theirs}.mlp.fc_in", f"{ours}.mlp.up", bias=True),
            *linear(f"{theirs}.mlp.fc_out", f"{ours}.mlp.down", bias=True),
        ]

    return [
        weight("transformer.wte.weight", "embedding.weight"),
        *norm("transformer.ln_f", "norm", bias=True),
        *linear("lm_head", "head", bias=True),
        *every(spec, layer),
    ]


GPTJ = Family(
    name="gptj", architecture="GPTJForCausalLM", read=_read, write=_write, steps=_steps, prefix="transformer."
)
