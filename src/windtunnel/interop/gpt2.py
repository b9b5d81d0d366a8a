"""GPT-2 (`GPT2LMHeadModel`): joined q, k and v, and matrices stored [in, out]."""

from collections.abc import Collection
from typing import Any

from windtunnel.embedding import Embedding, Head
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, the, the_mixers
from windtunnel.interop.weights import Split, Transpose, Weight, linear, norm, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Learned
from windtunnel.residuals import PreNorm


def _read(config: Config) -> LanguageModel:
    width, context = config.whole("n_embd", 768), config.whole("n_positions", 1024)
    norm = LayerNorm(eps=config.number("layer_norm_epsilon", 1e-5))
    config.only("n_ctx", context)  # older files say it twice
    config.only("scale_attn_by_inverse_layer_idx", False)
    config.any("reorder_and_upcast_attn")  # how, not what
    scaled = config.flag("scale_attn_weights", True)
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=Attention(heads=config.whole("n_head", 12), scale=None if scaled else 1.0, bias=True),
        mlp=Dense(
            hidden=config.whole("n_inner", 4 * width), activation=config.activation("activation_function", "gelu_new")
        ),
    )
    return LanguageModel(
        vocab=config.whole("vocab_size", 50257),
        width=width,
        context=context,
        embedding=Embedding(positions=Learned(length=context)),
        blocks=(block,) * config.whole("n_layer", 12),
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", True)),
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
        "n_positions": the(spec.embedding.positions, Learned, "embedding.positions").length,
        "activation_function": "gelu_new" if mlp.activation == "gelu_tanh" else THEIR_ACTIVATIONS[mlp.activation],
        "layer_norm_epsilon": the(spec.norm, LayerNorm, "norm").eps,
        "scale_attn_weights": mixer.scale != 1.0,
        "tie_word_embeddings": spec.head.tied,
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    def layer(index: int) -> list[Weight]:
        theirs, ours = f"transformer.h.{index}", f"blocks.{index}"
        apart = Split((spec.width,) * 3)
        return [
            *norm(f"{theirs}.ln_1", f"{ours}.residual.mixer_norm", bias=True),
            *norm(f"{theirs}.ln_2", f"{ours}.residual.mlp_norm", bias=True),
            *linear(f"{theirs}.attn.c_attn", [f"{ours}.mixer.{e}" for e in "qkv"], Transpose(), apart, bias=True),
            *linear(f"{theirs}.attn.c_proj", f"{ours}.mixer.o", Transpose(), bias=True),
            *linear(f"{theirs}.mlp.c_fc", f"{ours}.mlp.up", Transpose(), bias=True),
            *linear(f"{theirs}.mlp.c_proj", f"{ours}.mlp.down", Transpose(), bias=True),
        ]

    head = [] if spec.head.tied else [weight("lm_head.weight", "head.weight")]
    return [
        weight("transformer.wte.weight", "embedding.weight"),
        weight("transformer.wpe.weight", "embedding.positions.weight"),
        *norm("transformer.ln_f", "norm", bias=True),
        *head,
        *every(spec, layer),
    ]


GPT2 = Family(
    name="gpt2", architecture="GPT2LMHeadModel", read=_read, write=_write, steps=_steps, prefix="transformer."
)
