"""GPT-3 against `GPT2LMHeadModel` (dense layers) and `GPTNeoForCausalLM` (dense and banded layers in turn)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM

from tests.proof import Proof
from tests.recipes.cases import model_of
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from windtunnel.model import LanguageModel, LanguageModelLayer

NAMES = {"transformer.wte.weight": "embedding.weight", "transformer.wpe.weight": "embedding.positions.weight"}
for kind in ("weight", "bias"):
    NAMES[f"transformer.ln_f.{kind}"] = f"norm.{kind}"
    NAMES[f"transformer.h.*.ln_1.{kind}"] = f"blocks.*.residual.mixer_norm.{kind}"
    NAMES[f"transformer.h.*.ln_2.{kind}"] = f"blocks.*.residual.mlp_norm.{kind}"
SECOND_IS_NOT_OURS = ("q.bias", "k.bias", "v.bias")  # GPT-Neo has none


def gpt2(spec: LanguageModel) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=spec.vocab,
            n_positions=spec.context,
            n_embd=spec.width,
            n_layer=len(spec.blocks),
            n_head=4,
            n_inner=spec.blocks[0].mlp.hidden,  # type: ignore[union-attr]
            activation_function="gelu_new",
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="eager",
        )
    )


def to_gpt2(weights: Weights) -> dict[str, Tensor]:
    """GPT-2 joins q, k and v, and stores matrices [in, out]."""
    found = renamed(weights, NAMES)
    for layer in {name.split(".")[1] for name in weights if name.startswith("blocks.")}:
        ours, theirs = f"blocks.{layer}.", f"transformer.h.{layer}."
        found[theirs + "attn.c_attn.weight"] = torch.cat([weights[f"{ours}mixer.{each}.weight"] for each in "qkv"]).T
        found[theirs + "attn.c_attn.bias"] = torch.cat([weights[f"{ours}mixer.{each}.bias"] for each in "qkv"])
        for name, other in {"mixer.o": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}.items():
            found[f"{theirs}{other}.weight"] = weights[f"{ours}{name}.weight"].T
            found[f"{theirs}{other}.bias"] = weights[f"{ours}{name}.bias"]
    return found


def gpt_neo(spec: LanguageModel) -> GPTNeoForCausalLM:
    return GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=spec.vocab,
            max_position_embeddings=spec.context,
            hidden_size=spec.width,
            num_layers=len(spec.blocks),
            num_heads=4,
            intermediate_size=spec.blocks[0].mlp.hidden,  # type: ignore[union-attr]
            attention_types=[[["global", "local"], len(spec.blocks) // 2]],
            bos_token_id=None,
            eos_token_id=None,
            window_size=spec.blocks[1].mixer.window,  # type: ignore[attr-defined]
            attn_implementation="eager",
        )
    )


def to_gpt_neo(weights: Weights) -> dict[str, Tensor]:
    """GPT-Neo does not divide the scores by sqrt(head width), so its queries are smaller by that."""
    names = dict(NAMES)
    pairs = {"attn.attention.out_proj": "mixer.o", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
    for theirs, ours in pairs.items():
        for kind in ("weight", "bias"):
            names[f"transformer.h.*.{theirs}.{kind}"] = f"blocks.*.{ours}.{kind}"
    for each in "qkv":
        names[f"transformer.h.*.attn.attention.{each}_proj.weight"] = f"blocks.*.mixer.{each}.weight"
    head_width = weights["blocks.0.mixer.q.weight"].shape[0] // 4
    return {
        name: weight / math.sqrt(head_width) if "q_proj" in name else weight
        for name, weight in renamed(weights, names).items()
    }


def without_first_biases(**settings: Any) -> LanguageModelLayer:
    model = model_of("gpt3", dtype=torch.float64, layers=4, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(SECOND_IS_NOT_OURS):
                parameter.zero_()
    return model


@pytest.mark.parametrize("settings", [{}, {"hidden": 37, "layers": 1, "vocab": 41}], ids=str)
def test_dense_layers_are_gpt2(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("gpt3", dtype=torch.float64, banded=False, **settings)
    proof("gpt3", "transformers `GPT2LMHeadModel`, dense layers", **agree(ours, gpt2(ours.spec), to_gpt2))


def test_dense_decoding_is_gpt2(proof: Proof) -> None:
    ours = model_of("gpt3", dtype=torch.float64, banded=False)
    proof("gpt3", "transformers `GPT2LMHeadModel`, dense layers", **decode_alike(ours, gpt2(ours.spec), to_gpt2))


@pytest.mark.parametrize("window", [1, 2, 7, 23, 24, 300])
def test_banded_layers_are_gpt_neos_local_ones(window: int, proof: Proof) -> None:
    """24 tokens: bands narrower than the text, as wide, and wider."""
    ours = without_first_biases(window=window)
    seen = agree(ours, gpt_neo(ours.spec), to_gpt_neo, without=SECOND_IS_NOT_OURS)
    proof("gpt3", "transformers `GPTNeoForCausalLM`, dense and banded layers", **seen)


def test_banded_decoding_is_gpt_neos(proof: Proof) -> None:
    ours = without_first_biases(window=5)
    seen = decode_alike(ours, gpt_neo(ours.spec), to_gpt_neo)
    proof("gpt3", "transformers `GPTNeoForCausalLM`, dense and banded layers", **seen)


@pytest.mark.parametrize(
    "settings", [{}, {"combine": "sum", "rows": 4}, {"combine": "average"}, {"row_width": 20}], ids=str
)
def test_axial_text_is_gpt2_with_its_table_written_out(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("axial_text", dtype=torch.float64, **settings)
    combine = settings.get("combine", "concatenate")

    def to_table(weights: Weights) -> dict[str, Tensor]:
        rows, columns = (weights[f"embedding.positions.axis{axis}"] for axis in (0, 1))
        points = [(rows[place // len(columns)], columns[place % len(columns)]) for place in range(ours.spec.context)]
        if combine == "concatenate":
            table = torch.stack([torch.cat(pair) for pair in points])
        else:
            table = torch.stack([sum(pair) for pair in points]) / (2 if combine == "average" else 1)  # type: ignore[arg-type]
        return to_gpt2({**weights, "embedding.positions.weight": table})

    other = gpt2(ours.spec)
    proof(
        "axial_text",
        "transformers `GPT2LMHeadModel`",
        **agree(ours, other, to_table),
        **decode_alike(ours, other, to_table),
    )
