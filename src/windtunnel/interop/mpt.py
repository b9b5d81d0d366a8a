"""MPT (`MptForCausalLM`): linear biases on the scores (ALiBi), no biases anywhere, joined q, k and v."""

from collections.abc import Collection
from typing import Any

from windtunnel.embedding import Head
from windtunnel.init import Kaiming
from windtunnel.interop.config import Config
from windtunnel.interop.family import Family, every, the, the_mixers
from windtunnel.interop.weights import Split, Weight, linear, norm, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Alibi
from windtunnel.residuals import PreNorm

# Attributes of files that the released code wrote; transformers reads none of them.
_PASSED = ("verbose", "embedding_fraction", "norm_type", "init_config", "learned_pos_emb")


def _read(config: Config) -> LanguageModel:
    width, heads = config.whole("d_model", 2048), config.whole("n_heads", 16)
    for name in _PASSED:
        config.any(name)
    config.only("expansion_ratio", 4)  # transformers has 4 whatever is said
    config.only("no_bias", True)
    config.only("logit_scale", None)
    norm = LayerNorm(eps=config.number("layer_norm_epsilon", 1e-5), bias=False)
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=Attention(heads=heads, scale=_scale(config), alibi=Alibi()),
        mlp=Dense(hidden=4 * width, activation="gelu", bias=False),
    )
    return LanguageModel(
        vocab=config.whole("vocab_size", 50368),
        width=width,
        context=config.whole("max_seq_len", 2048),
        blocks=(block,) * config.whole("n_layers", 24),
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", True)),
        initial=Kaiming(),
    )


def _scale(config: Config) -> float | None:
    """Of the scores, from the configuration inside the configuration, of which little else is carried."""
    inner = Config(config.any("attn_config", {}), f"{config.place}: attn_config", tuple(config.ignore))
    inner.only("alibi", True)
    inner.only("attn_type", "multihead_attention")
    inner.only("clip_qkv", None)
    inner.only("prefix_lm", False)
    inner.only("qk_ln", False)
    inner.only("attn_uses_sequence_id", False)
    inner.any("attn_impl")
    scale = inner.number("softmax_scale") if inner.any("softmax_scale") is not None else None
    inner.only("alibi_bias_max", 8)  # transformers has 8 whatever is said
    inner.finish()
    return scale


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixer = the_mixers(spec, Attention)[0]
    return {
        "vocab_size": spec.vocab,
        "d_model": spec.width,
        "n_layers": len(spec.blocks),
        "n_heads": mixer.heads,
        "max_seq_len": spec.context,
        "layer_norm_epsilon": the(spec.norm, LayerNorm, "norm").eps,
        "no_bias": True,
        "tie_word_embeddings": spec.head.tied,
        "attn_config": {"alibi": True, "softmax_scale": mixer.scale},
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    def layer(index: int) -> list[Weight]:
        theirs, ours = f"transformer.blocks.{index}", f"blocks.{index}"
        return [
            *norm(f"{theirs}.norm_1", f"{ours}.residual.mixer_norm"),
            *norm(f"{theirs}.norm_2", f"{ours}.residual.mlp_norm"),
            *linear(f"{theirs}.attn.Wqkv", [f"{ours}.mixer.{each}" for each in "qkv"], Split((spec.width,) * 3)),
            *linear(f"{theirs}.attn.out_proj", f"{ours}.mixer.o"),
            *linear(f"{theirs}.ffn.up_proj", f"{ours}.mlp.up"),
            *linear(f"{theirs}.ffn.down_proj", f"{ours}.mlp.down"),
        ]

    head = [] if spec.head.tied else [weight("lm_head.weight", "head.weight")]
    return [
        weight("transformer.wte.weight", "embedding.weight"),
        *norm("transformer.norm_f", "norm"),
        *head,
        *every(spec, layer),
    ]


MPT = Family(name="mpt", architecture="MptForCausalLM", read=_read, write=_write, steps=_steps, prefix="transformer.")
