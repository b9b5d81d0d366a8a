"""The other families' checkpoints, in and out, for odd configurations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    DiffLlamaConfig,
    DiffLlamaForCausalLM,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from tests.interop.pairs import carried
from tests.proof import Proof
from tests.theirs import cache_name
from windtunnel.errors import InputError
from windtunnel.interop.importing import import_folder, read_config

EXAMPLES = settings(max_examples=3)
LATER = (5, *[1] * 15)  # a prompt and single tokens: theirs starts convolutions anew in longer calls
TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


def gpt2(**changes: Any) -> Any:
    base = {"vocab_size": 41, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40}
    return GPT2LMHeadModel(GPT2Config(**{**TOKENS, **base, **changes}))


def gptj(**changes: Any) -> Any:
    base = {"vocab_size": 41, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40, "rotary_dim": 4}
    return GPTJForCausalLM(GPTJConfig(**{**TOKENS, **base, **changes}))


def sized(**changes: Any) -> dict[str, Any]:
    """What most configurations spell alike."""
    base = {
        "vocab_size": 41,
        "hidden_size": 24,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": 40,
    }
    return {**TOKENS, **base, **changes}


def neox(share: float = 0.5, **changes: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": share}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**sized(rope_parameters=rope, **changes)))


def cohere(**changes: Any) -> Any:
    return CohereForCausalLM(CohereConfig(**sized(num_key_value_heads=1, logit_scale=0.3, **changes)))


def mpt(heads: int = 3, **changes: Any) -> Any:
    base = {"vocab_size": 41, "d_model": 8 * heads, "n_heads": heads, "n_layers": 2, "max_seq_len": 40}
    return MptForCausalLM(MptConfig(**{**TOKENS, **base, **changes}))


def mixtral(**changes: Any) -> Any:
    base = {"num_local_experts": 5, "num_experts_per_tok": 2, "num_key_value_heads": 1, "intermediate_size": 36}
    return MixtralForCausalLM(MixtralConfig(**sized(**{**base, **changes})))


def diff_llama(heads: int = 4, groups: int = 2, **changes: Any) -> Any:
    shape = {"num_attention_heads": heads, "num_key_value_heads": groups, "attn_implementation": "eager"}
    return DiffLlamaForCausalLM(DiffLlamaConfig(**{**sized(), **shape, **changes}))


def mamba(**changes: Any) -> Any:
    base = {"vocab_size": 41, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 5}
    return MambaForCausalLM(MambaConfig(**{**TOKENS, **base, **changes}))


def recurrent_gemma(**changes: Any) -> Any:
    base = {
        "vocab_size": 41,
        "hidden_size": 32,
        "intermediate_size": 74,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "lru_width": 36,
        "attention_window_size": 5,
        "attn_implementation": "eager",
    }
    return RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**{**TOKENS, **base, **changes}))


class Placed:
    """RecurrentGemma told where each call begins, as its `generate` does, and with a cache that it does not return."""

    def __init__(self, model: Any) -> None:
        self.model, self.forward = model, model.forward
        self.seen, self.past = 0, {cache_name(model): DynamicCache(config=model.config)}

    def __call__(self, tokens: torch.Tensor, use_cache: bool, **_: Any) -> Any:
        places = torch.arange(self.seen, self.seen + tokens.shape[1])[None]
        self.seen += tokens.shape[1]
        return self.model(tokens, position_ids=places, **self.past, use_cache=use_cache)


@pytest.mark.parametrize("make", [gpt2, gptj, neox, cohere, mpt, mixtral, diff_llama])
def test_families(make: Any, proof: Proof) -> None:
    model = make()
    name = model.config.model_type
    proof(f"import and export of {name}", f"transformers `{type(model).__name__}`, float32", **carried(model))


def test_recurrent_gemma(proof: Proof) -> None:
    """Their gains are stored less one, ours are not: in float32 one in 2^24 of a small gain is lost on the way in."""
    seen = carried(recurrent_gemma(), LATER, called=Placed, tolerance=1e-7)
    proof("import and export of recurrent_gemma", "transformers `RecurrentGemmaForCausalLM`, float32", **seen)


@EXAMPLES
@given(
    st.sampled_from([["attention", "recurrent"], ["recurrent", "attention", "attention"]]),
    st.booleans(),
    st.sampled_from([2, 3]),
    st.sampled_from([10.0, 30.0]),
)
def test_odd_recurrent_gemma(kinds: list[str], bias: bool, taps: int, cap: float) -> None:
    model = recurrent_gemma(block_types=kinds, attention_bias=bias, conv1d_width=taps, logits_soft_cap=cap)
    carried(model, LATER, called=Placed, tolerance=1e-7)


def test_gains_less_one_stay_wide(tmp_path: Path) -> None:
    recurrent_gemma().bfloat16().save_pretrained(tmp_path / "theirs")
    assert import_folder(tmp_path / "theirs", tmp_path / "run")["imported"]["dtype"] == "float32"
    with pytest.raises(
        InputError, match="--dtype: recurrent_gemma has gains stored less one, which only float32 keeps"
    ):
        import_folder(tmp_path / "theirs", tmp_path / "narrow", dtype=torch.bfloat16)
    assert not (tmp_path / "narrow").exists()


def test_mamba(proof: Proof) -> None:
    seen = carried(mamba(), LATER)
    proof("import and export of mamba", "transformers `MambaForCausalLM`, float32", **seen)


@EXAMPLES
@given(st.sampled_from([None, 37]), st.booleans(), st.booleans(), st.sampled_from(["gelu_new", "gelu", "relu"]))
def test_odd_gpt2(hidden: int | None, tied: bool, scaled: bool, activation: str) -> None:
    carried(gpt2(n_inner=hidden, tie_word_embeddings=tied, scale_attn_weights=scaled, activation_function=activation))


@EXAMPLES
@given(st.sampled_from([2, 6, 8]), st.sampled_from([None, 37]), st.sampled_from([1e-5, 1e-2]))
def test_odd_gptj(rotated: int, hidden: int | None, eps: float) -> None:
    carried(gptj(rotary_dim=rotated, n_inner=hidden, layer_norm_epsilon=eps))


@EXAMPLES
@given(st.sampled_from([0.25, 0.75, 1.0]), st.booleans(), st.booleans(), st.booleans())
def test_odd_neox(share: float, parallel: bool, bias: bool, tied: bool) -> None:
    carried(neox(share, use_parallel_residual=parallel, attention_bias=bias, tie_word_embeddings=tied))


@EXAMPLES
@given(st.booleans(), st.booleans(), st.sampled_from(["silu", "gelu"]))
def test_odd_cohere(bias: bool, tied: bool, activation: str) -> None:
    carried(cohere(attention_bias=bias, tie_word_embeddings=tied, hidden_act=activation))


@EXAMPLES
@given(st.sampled_from([1, 4, 6]), st.sampled_from([None, 0.7]), st.booleans())
def test_odd_mpt(heads: int, scale: float | None, tied: bool) -> None:
    carried(mpt(heads, attn_config={"softmax_scale": scale}, tie_word_embeddings=tied))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attn_config": {"alibi_bias_max": 16}}, "attn_config: alibi_bias_max is 16; only 8 is carried"),
        ({"attn_config": {"clip_qkv": 6.0}}, r"attn_config: clip_qkv is 6\.0; only None is carried"),
        ({"expansion_ratio": 2}, "expansion_ratio is 2; only 4 is carried"),
    ],
)
def test_mpts_that_transformers_reads_as_others(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_config({"model_type": "mpt", **changes}, "config.json")


@EXAMPLES
@given(st.sampled_from([(2, 2), (5, 3)]), st.sampled_from([None, 7]), st.booleans())
def test_odd_mixtral(experts: tuple[int, int], window: int | None, tied: bool) -> None:
    many, chosen = experts
    carried(
        mixtral(num_local_experts=many, num_experts_per_tok=chosen, sliding_window=window, tie_word_embeddings=tied)
    )


@EXAMPLES
@given(st.sampled_from([(4, 4), (6, 2), (2, 2)]), st.booleans())
def test_odd_diff_llama(heads: tuple[int, int], tied: bool) -> None:
    carried(diff_llama(*heads, tie_word_embeddings=tied))


@EXAMPLES
@given(st.sampled_from([1, 2, 3]), st.sampled_from([2, 4]), st.sampled_from(["auto", 1, 3]), st.booleans())
def test_odd_mamba(expand: int, taps: int, rank: Any, tied: bool) -> None:
    model = mamba(expand=expand, conv_kernel=taps, time_step_rank=rank, tie_word_embeddings=tied)
    carried(model, LATER)
