"""Llama 1 to 3 (`LlamaForCausalLM`) and its near relatives: Mistral with a window, Qwen2 with biases on q, k and v."""

from collections.abc import Collection
from functools import partial
from typing import Any

from windtunnel.embedding import Head
from windtunnel.errors import InputError
from windtunnel.init import FanIn
from windtunnel.interop.config import THEIR_ACTIVATIONS, Config
from windtunnel.interop.family import Family, every, head_width_of, rope_of, the, the_mixers, turned
from windtunnel.interop.rope import read_rope, write_rope
from windtunnel.interop.weights import Weight, linear, norm, weight
from windtunnel.mixers import Attention
from windtunnel.mlps import Gated
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.residuals import PreNorm


def _read(config: Config, relative: str) -> LanguageModel:
    width, context = config.whole("hidden_size"), config.whole("max_position_embeddings", 2048)
    heads = config.whole("num_attention_heads")
    head_width = config.whole("head_dim", width // heads)
    bias = relative == "qwen2" or (relative == "llama" and config.flag("attention_bias", False))
    block = Block(
        residual=PreNorm(norm=read_norm(config)),
        mixer=Attention(
            heads=heads,
            head_width=None if head_width * heads == width else head_width,
            kv_heads=config.whole("num_key_value_heads", 8 if relative == "mistral" else heads),
            rope=read_rope(config, head_width, context),
            bias=bias,
            output_bias=False if relative == "qwen2" else None,
        ),
        mlp=Gated(
            hidden=config.whole("intermediate_size"),
            activation=config.activation("hidden_act", "silu"),
            bias=relative == "llama" and config.flag("mlp_bias", False),
        ),
    )
    return read_body(config, context, _windows(config, relative, block))


def read_norm(config: Config, eps: float = 1e-6) -> RMSNorm:
    """The norm of every place; eps is the family's default."""
    return RMSNorm(eps=config.number("rms_norm_eps", eps))


def read_body(config: Config, context: int, blocks: tuple[Block, ...]) -> LanguageModel:
    """What Llama's relatives share around their blocks."""
    norm = blocks[0].residual.norm  # type: ignore[attr-defined]
    return LanguageModel(
        vocab=config.whole("vocab_size"),
        width=config.whole("hidden_size"),
        context=context,
        blocks=blocks,
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", False)),
        initial=FanIn(embedding=1.0, scale_writes=True),
    )


def _windows(config: Config, relative: str, block: Block) -> tuple[Block, ...]:
    """Mistral has one window for all layers, Qwen2 one for those that it names, or from `max_window_layers` on."""
    layers = config.whole("num_hidden_layers")
    if relative == "llama":
        return (block,) * layers
    window = config.maybe_whole("sliding_window")
    kinds = ["sliding_attention"] * layers
    if relative == "mistral" and "sliding_window" not in config.values:
        window = 4096
    if relative == "qwen2":
        first = config.whole("max_window_layers", 28) if config.any("max_window_layers") != 0 else 0
        later = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
        kinds = list(config.any("layer_types", later))
        window = window if config.flag("use_sliding_window", False) else None
        if len(kinds) != layers or set(kinds) - {"sliding_attention", "full_attention"}:
            raise config.refusal("layer_types", f"must name sliding_attention or full_attention {layers} times")
    banded = block.replace(mixer=block.mixer.replace(window=window))
    return tuple(banded if kind == "sliding_attention" else block for kind in kinds)


def _write(spec: LanguageModel, relative: str) -> dict[str, Any]:
    mixers = the_mixers(spec, Attention)
    mlp = the(spec.blocks[0].mlp, Gated, "blocks.0.mlp")
    written = {
        **write_body(spec, mixers[0]),
        "intermediate_size": mlp.hidden,
        "hidden_act": THEIR_ACTIVATIONS[mlp.activation],
    }
    windows = [mixer.window for mixer in mixers]
    if relative == "llama":
        if spec.width % mixers[0].heads:
            raise InputError(f"heads {mixers[0].heads} do not divide the width {spec.width}, which LlamaConfig demands")
        return {**written, "attention_bias": mixers[0].bias, "mlp_bias": mlp.bias}
    if relative == "mistral":
        return {**written, "sliding_window": windows[0]}
    widest = max((window for window in windows if window is not None), default=None)
    return {
        **written,
        "use_sliding_window": widest is not None,
        "sliding_window": widest,
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in windows],
    }


def write_body(spec: LanguageModel, mixer: Attention) -> dict[str, Any]:
    """What Llama's relatives share."""
    head_width = head_width_of(mixer, spec.width)
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.blocks),
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.kv_heads or mixer.heads,
        "head_dim": head_width,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": the(spec.norm, RMSNorm, "norm").eps,
        "tie_word_embeddings": spec.head.tied,
        **write_rope(rope_of(mixer), head_width, spec.context),
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    def layer(index: int) -> list[Weight]:
        mlp = the(spec.blocks[index].mlp, Gated, f"blocks.{index}.mlp")
        theirs, ours = f"model.layers.{index}.mlp", f"blocks.{index}.mlp"
        gated = [linear(f"{theirs}.{each}_proj", f"{ours}.{each}", bias=mlp.bias) for each in ("gate", "up", "down")]
        return [*attention_steps(spec, index), *(step for steps in gated for step in steps)]

    return [*outer_steps(spec), *every(spec, layer)]


def outer_steps(spec: LanguageModel) -> list[Weight]:
    """The tables and the last norm of Llama's relatives."""
    head = [] if spec.head.tied else [weight("lm_head.weight", "head.weight")]
    return [weight("model.embed_tokens.weight", "embedding.weight"), *norm("model.norm", "norm"), *head]


def attention_steps(spec: LanguageModel, index: int) -> list[Weight]:
    """Norms and attention of a layer of Llama's relatives, whose rotated pairs are two halves of a head."""
    mixer = the(spec.blocks[index].mixer, Attention, f"blocks.{index}.mixer")
    theirs, ours = f"model.layers.{index}", f"blocks.{index}"
    width, groups = head_width_of(mixer, spec.width), mixer.kv_heads or mixer.heads
    out = mixer.bias if mixer.output_bias is None else mixer.output_bias
    steps = [
        norm(f"{theirs}.input_layernorm", f"{ours}.residual.mixer_norm"),
        norm(f"{theirs}.post_attention_layernorm", f"{ours}.residual.mlp_norm"),
        linear(f"{theirs}.self_attn.v_proj", f"{ours}.mixer.v", bias=mixer.bias),
        linear(f"{theirs}.self_attn.o_proj", f"{ours}.mixer.o", bias=out),
    ]
    for name, heads in (("q", mixer.heads), ("k", groups)):
        turn = turned(mixer.rope, "half", heads, width)
        steps.append(linear(f"{theirs}.self_attn.{name}_proj", f"{ours}.mixer.{name}", *turn, bias=mixer.bias))
    return [step for each in steps for step in each]


def _family(name: str, architecture: str) -> Family:
    return Family(
        name=name,
        architecture=architecture,
        read=partial(_read, relative=name),
        write=partial(_write, relative=name),
        steps=_steps,
        prefix="model.",
    )


LLAMA = _family("llama", "LlamaForCausalLM")
MISTRAL = _family("mistral", "MistralForCausalLM")
QWEN2 = _family("qwen2", "Qwen2ForCausalLM")
