"""Mamba (`MambaForCausalLM`): selective state spaces, with their projections joined."""

from collections.abc import Collection
from typing import Any

from windtunnel.embedding import Head
from windtunnel.init import FanInUniform
from windtunnel.interop.config import Config
from windtunnel.interop.family import Family, every, the, the_mixers
from windtunnel.interop.weights import Split, Squeeze, Weight, linear, norm, weight
from windtunnel.mixers import Mamba
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.residuals import PreNorm

# How, not what; and how training starts.
_PASSED = (
    *("residual_in_fp32", "use_mambapy", "use_associative_scan", "rescale_prenorm_residual", "fused_add_norm"),
    *("time_step_scale", "time_step_min", "time_step_max", "time_step_init_scheme", "time_step_floor", "ssm_cfg"),
    *("rms_norm", "pad_vocab_size_multiple"),
)
_CONTEXT = 2048  # nothing bounds it; the released models were trained at this


def _read(config: Config) -> LanguageModel:
    width, layers = config.whole("hidden_size", 768), config.whole("num_hidden_layers", 32)
    for name in _PASSED:
        config.any(name)
    config.only("d_model", width)
    config.only("n_layer", layers)
    config.only("use_bias", False)
    config.only("use_conv_bias", True)
    config.only("hidden_act", "silu")
    rank = config.any("time_step_rank", "auto")
    hidden = int(config.number("expand", 2) * width)
    config.only("intermediate_size", hidden)
    config.only("d_inner", hidden)
    norm = RMSNorm(eps=config.number("layer_norm_epsilon", 1e-5))
    mixer = Mamba(
        hidden=hidden,
        state=config.whole("state_size", 16),
        taps=config.whole("conv_kernel", 4),
        rank=None if rank == "auto" else config.whole("time_step_rank"),
    )
    return LanguageModel(
        vocab=config.whole("vocab_size", 50280),
        width=width,
        context=config.whole("max_position_embeddings", _CONTEXT),
        blocks=(Block(residual=PreNorm(norm=norm), mixer=mixer),) * layers,
        norm=norm,
        head=Head(tied=config.flag("tie_word_embeddings", True)),
        initial=FanInUniform(embedding=0.02),
    )


def _write(spec: LanguageModel) -> dict[str, Any]:
    mixer = the_mixers(spec, Mamba)[0]
    ratio = mixer.hidden / spec.width
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.blocks),
        "state_size": mixer.state,
        "conv_kernel": mixer.taps,
        "expand": int(ratio) if ratio.is_integer() else ratio,
        "time_step_rank": mixer.rank or "auto",
        "layer_norm_epsilon": the(spec.norm, RMSNorm, "norm").eps,
        "use_bias": False,
        "use_conv_bias": True,
        "max_position_embeddings": spec.context,
        "tie_word_embeddings": spec.head.tied,
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    mixers = the_mixers(spec, Mamba)

    def layer(index: int) -> list[Weight]:
        theirs, ours = f"backbone.layers.{index}.mixer", f"blocks.{index}.mixer"
        mixer = mixers[index]
        rank = mixer.rank or -(-spec.width // 16)
        low = [f"{ours}.step_low", f"{ours}.into", f"{ours}.out_of"]
        return [
            *norm(f"backbone.layers.{index}.norm", f"blocks.{index}.residual.mixer_norm"),
            *linear(f"{theirs}.in_proj", [f"{ours}.u", f"{ours}.z"], Split((mixer.hidden, mixer.hidden))),
            weight(f"{theirs}.conv1d.weight", f"{ours}.conv_weight", Squeeze(1)),
            weight(f"{theirs}.conv1d.bias", f"{ours}.conv_bias"),
            *linear(f"{theirs}.x_proj", low, Split((rank, mixer.state, mixer.state))),
            weight(f"{theirs}.dt_proj.weight", f"{ours}.step_weight"),
            weight(f"{theirs}.dt_proj.bias", f"{ours}.step_bias"),
            weight(f"{theirs}.A_log", f"{ours}.log_rates"),
            weight(f"{theirs}.D", f"{ours}.skip"),
            *linear(f"{theirs}.out_proj", f"{ours}.out"),
        ]

    head = [] if spec.head.tied else [weight("lm_head.weight", "head.weight")]
    return [
        weight("backbone.embeddings.weight", "embedding.weight"),
        *norm("backbone.norm_f", "norm"),
        *head,
        *every(spec, layer),
    ]


MAMBA = Family(
    name="mamba",
    architecture="MambaForCausalLM",
    read=_read,
    write=_write,
    steps=_steps,
    prefix="backbone.",
    aliases=(("backbone.embedding.", "backbone.embeddings."),),
)
