"""Llama with each way of scaling its rotary positions against `LlamaForCausalLM` with the same `rope_parameters`."""

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.proof import Proof
from tests.recipes import test_oracles_llama as llama
from tests.recipes.cases import model_of
from tests.recipes.oracle import agree, decode_alike
from windtunnel.model import LanguageModelLayer
from windtunnel.positions import DynamicNTK, Interpolation, Llama3, Scaling, YaRN, scaled

LENGTH = 24  # tokens of `agree`
ORIGINAL = {"original_max_position_embeddings": 8}
SCALINGS: dict[str, tuple[Scaling, dict[str, Any]]] = {
    "linear": (Interpolation(factor=3), {"factor": 3.0}),
    "yarn": (
        YaRN(factor=4, trained=8, fast=2.0, slow=0.2),
        {"factor": 4.0, **ORIGINAL, "beta_fast": 2.0, "beta_slow": 0.2},
    ),
    "llama3": (
        Llama3(factor=4, trained=8, low=0.1, high=0.9),
        {"factor": 4.0, **ORIGINAL, "low_freq_factor": 0.1, "high_freq_factor": 0.9},
    ),
    "dynamic": (DynamicNTK(factor=2, trained=8, length=LENGTH), {"factor": 2.0}),
}


def both(method: str) -> tuple[LanguageModelLayer, LlamaForCausalLM]:
    scaling, given = SCALINGS[method]
    plain = model_of("llama", dtype=torch.float64, theta=500.0)
    ours = scaled(plain.spec, scaling).build().double()
    ours.load_state_dict(plain.state_dict())
    config = llama.theirs(plain.spec).config
    config.max_position_embeddings = 8 if method == "dynamic" else 32
    config.rope_parameters = {"rope_type": method, "rope_theta": 500.0, **given}
    return ours, LlamaForCausalLM(config)


@pytest.mark.parametrize("method", SCALINGS)
def test_values_and_gradients(method: str, proof: Proof) -> None:
    ours, theirs = both(method)
    proof(
        f"rotary scaling {type(SCALINGS[method][0]).__name__}",
        "transformers LlamaForCausalLM",
        **agree(ours, theirs, llama.mapped),
    )


@pytest.mark.parametrize("method", SCALINGS)
def test_it_is_felt(method: str) -> None:
    _, theirs = both(method)
    with pytest.raises(AssertionError, match="logits"):
        agree(model_of("llama", dtype=torch.float64, theta=500.0), theirs, llama.mapped)


@pytest.mark.parametrize("method", ["linear", "yarn", "llama3"])
def test_cached_decoding(method: str, proof: Proof) -> None:
    """Not the dynamic method: theirs leaves keys of several bases in one cache, ours is fixed by its length."""
    ours, theirs = both(method)
    proof(
        f"rotary scaling {type(SCALINGS[method][0]).__name__}",
        "transformers LlamaForCausalLM",
        **decode_alike(ours, theirs, llama.mapped),
    )
