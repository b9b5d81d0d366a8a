"""GPT-Neo (`GPTNeoForCausalLM`): global and local attention in turn, scores that are not scaled."""

from collections.abc import Collection
from itertools import groupby
from typing import Any

from windtunnel.embedding import Embedding, Head
from windtunnel.init import MeshTensorFlow
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, the, the_mixers
from windtunnel.interop.weights import Weight, linear, norm, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Learned
from windtunnel.residuals import PreNorm

_KINDS = {"global", "local"}


def _read(config: Config) -> LanguageModel:
    width, context = config.whole("hidden_size"), config.whole("max_position_embeddings", 2048)
    norm = LayerNorm(eps=config.number("layer_norm_epsilon", 1e-5))
    window = config.whole("window_size", 256)
    mlp = Dense(
        hidden=config.whole("intermediate_size", 4 * width),
        activation=config.activation("activation_function", "gelu_new"),
    )

    def block(kind: str) -> Block:
        mixer = Attention(
            heads=config.whole("num_heads"), scale=1.0, output_bias=True, window=window if kind == "local" else None
        )
        return Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=mlp)

    return LanguageModel(
        vocab=config.whole("vocab_size"),
        width=width,
        context=context,
        embedding=Embedding(positions=Learned(length=context, deviation=0.01)),
        blocks=tuple(block(kind) for kind in _layer_kinds(config)),
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", True)),
        initial=MeshTensorFlow(),
    )


def _layer_kinds(config: Config) -> list[str]:
    """`attention_types` [[kinds, repeats], ...] written out; older files have `attention_layers` beside it."""
    layers = config.whole("num_layers")
    given = config.any("attention_types", [[["global", "local"], 12]])
    try:
        kinds = [kind for part, repeats in given for _ in range(repeats) for kind in part]
    except (TypeError, ValueError):
        raise config.refusal("attention_types", f"must be [[kinds, repeats], ...], got {given!r}") from None
    if len(kinds) != layers or set(kinds) - _KINDS:
        raise config.refusal("attention_types", f"must give {layers} times global or local, got {given!r}")
    config.only("attention_layers", kinds)
    return kinds


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixers = the_mixers(spec, Attention)
    mlp = the(spec.blocks[0].mlp, Dense, "blocks.0.mlp")
    windows = [mixer.window for mixer in mixers if mixer.window is not None]
    kinds = ["global" if mixer.window is None else "local" for mixer in mixers]
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_layers": len(spec.blocks),
        "num_heads": mixers[0].heads,
        "intermediate_size": mlp.hidden,
        "activation_function": "gelu_new" if mlp.activation == "gelu_tanh" else THEIR_ACTIVATIONS[mlp.activation],
        "max_position_embeddings": the(spec.embedding.positions, Learned, "embedding.positions").length,
        "attention_types": _folded(kinds),
        "window_size": windows[0] if windows else 256,
        "layer_norm_epsilon": the(spec.norm, LayerNorm, "norm").eps,
        "tie_word_embeddings": spec.head.tied,
    }


def _folded(kinds: list[str]) -> list[list[Any]]:
    """[[kinds, repeats], ...], as the released models spell it where they can."""
    half = len(kinds) // 2
    if half and kinds == kinds[:2] * half:
        return [[kinds[:2], half]]
    return [[[kind], len(list(same))] for kind, same in groupby(kinds)]


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    def layer(index: int) -> list[Weight]:
        theirs, ours = f"transformer.h.{index}", f"blocks.{index}"
        projections = [linear(f"{theirs}.attn.attention.{each}_proj", f"{ours}.mixer.{each}") for each in "qkv"]
        return [
            *norm(f"{theirs}.ln_1", f"{ours}.residual.mixer_norm", bias=True),
            *norm(f"{theirs}.ln_2", f"{ours}.residual.mlp_norm", bias=True),
            *(step for steps in projections for step in steps),
            *linear(f"{theirs}.attn.attention.out_proj", f"{ours}.mixer.o", bias=True),
            *linear(f"{theirs}.mlp.c_fc", f"{ours}.mlp.up", bias=True),
            *linear(f"{theirs}.mlp.c_proj", f"{ours}.mlp.down", bias=True),
        ]

    head = [] if spec.head.tied else [weight("lm_head.weight", "head.weight")]
    return [
        weight("transformer.wte.weight", "embedding.weight"),
        weight("transformer.wpe.weight", "embedding.positions.weight"),
        *norm("transformer.ln_f", "norm", bias=True),
        *head,
        *every(spec, layer),
    ]


GPT_NEO = Family(
    name="gpt_neo",
    architecture="GPTNeoForCausalLM",
    read=_read,
    write=_write,
    steps=_steps,
    prefix="transformer.",
)
