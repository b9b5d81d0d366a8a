"""Llama, Mistral and Qwen2 checkpoints, in and out, for odd configurations."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.interop.pairs import carried
from tests.proof import Proof
from windtunnel.interop.config import Config
from windtunnel.interop.exporting import choose
from windtunnel.interop.families import FAMILIES
from windtunnel.positions import DynamicNTK, Rope

EXAMPLES = settings(max_examples=3)
ORIGINAL = {"original_max_position_embeddings": 12}
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 0.2, "high_freq_factor": 1.5, **ORIGINAL},
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 2.0, "beta_slow": 0.2, **ORIGINAL},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3, "truncate": False, **ORIGINAL},
]


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """What the relatives share: groups, odd widths, tied tables, thetas."""
    groups, ratio, half = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    heads = groups * ratio
    return {
        "vocab_size": draw(st.integers(5, 60)),
        "hidden_size": heads * draw(st.integers(2, 9)),
        "intermediate_size": draw(st.integers(3, 40)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": 2 * half,
        "max_position_embeddings": 48,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": {"rope_type": "default", "rope_theta": draw(st.sampled_from([100.0, 500_000.0]))},
        "hidden_act": draw(st.sampled_from(["silu", "gelu", "gelu_pytorch_tanh", "relu"])),
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
    }


@EXAMPLES
@given(shapes(), st.booleans(), st.booleans(), st.sampled_from(SCALINGS))
def test_llama(shape: dict[str, Any], attention: bool, mlp: bool, scaling: dict[str, Any]) -> None:
    assume(scaling["rope_type"] != "dynamic" or shape["head_dim"] > 2)  # theirs divides by head_dim - 2
    shape["rope_parameters"] = {**shape["rope_parameters"], **scaling}
    carried(LlamaForCausalLM(LlamaConfig(**shape, attention_bias=attention, mlp_bias=mlp)))


@EXAMPLES
@given(shapes(), st.sampled_from([None, 2, 7, 100]))
def test_mistral(shape: dict[str, Any], window: int | None) -> None:
    """Not a window of 1, for which their cache keeps every key."""
    carried(MistralForCausalLM(MistralConfig(**shape, sliding_window=window)))


@EXAMPLES
@given(shapes(), st.booleans(), st.integers(1, 3))
def test_qwen2(shape: dict[str, Any], windows: bool, first: int) -> None:
    config = Qwen2Config(**shape, use_sliding_window=windows, sliding_window=5, max_window_layers=first)
    carried(Qwen2ForCausalLM(config))


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_scaled_positions(scaling: dict[str, Any], proof: Proof) -> None:
    rope = {"rope_theta": 500.0, **scaling}
    config = LlamaConfig(
        vocab_size=41,
        hidden_size=36,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=48,
        rope_parameters=rope,
    )
    proof("import and export of llama", "transformers `LlamaForCausalLM`, float32", **carried(LlamaForCausalLM(config)))


def test_older_files_have_their_defaults_and_their_spelling_of_positions() -> None:
    values = {
        "vocab_size": 32,
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "rope_theta": 1000.0,
        "rope_scaling": {"type": "linear", "factor": 2},
    }
    spec: Any = FAMILIES["llama"].read(Config(values, "config.json"))
    assert spec.context == 2048
    assert spec.blocks[0].mixer.kv_heads == 8
    assert (spec.blocks[0].mixer.rope.theta, spec.blocks[0].mixer.rope.scaling.factor) == (1000.0, 2.0)
    mistral: Any = FAMILIES["mistral"].read(Config(values, "config.json"))
    assert (mistral.blocks[0].mixer.kv_heads, mistral.blocks[0].mixer.window) == (8, 4096)


def test_a_length_beyond_the_trained_one_is_not_theirs() -> None:
    """Their dynamic method turns with the text; ours is one function, the same only up to the trained context."""
    base: Any = FAMILIES["llama"].read(Config(LlamaConfig(num_hidden_layers=1).to_dict(), "config.json"))
    for length, family in ((2048, "llama"), (4096, "windtunnel")):
        rope = Rope(scaling=DynamicNTK(factor=2.0, trained=2048, length=length))
        block = base.blocks[0].replace(mixer=base.blocks[0].mixer.replace(rope=rope))
        assert choose(base.replace(blocks=(block,)))[0].name == family
