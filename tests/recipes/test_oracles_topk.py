"""Top-k attention: the baseline under another attention function, and the baseline where nothing is left out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, LlamaForCausalLM

from tests.proof import Proof
from tests.recipes import test_oracles_llama as llama
from tests.recipes.cases import model_of
from tests.recipes.oracle import agree, decode_alike
from windtunnel.errors import InputError
from windtunnel.mixers import Attention, TopKAttention
from windtunnel.model import LanguageModel
from windtunnel.positions import Alibi

TOP = 5


def chosen(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **other: Any
) -> tuple[Tensor, None]:
    """Attention by sorting: the 5 best of the keys so far, row by row of a table; their interface, [b t h k] out."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    t, s = scores.shape[2:]
    future = torch.arange(s) > torch.arange(s - t, s)[:, None]
    scores = scores.masked_fill(future, -torch.inf)
    best = scores.argsort(-1, descending=True)[..., :TOP]
    kept = torch.full_like(scores, -torch.inf).scatter(-1, best, scores.gather(-1, best))
    return (kept.softmax(-1) @ value).transpose(1, 2), None


def theirs(spec: LanguageModel) -> LlamaForCausalLM:
    first = spec.blocks[0].mixer
    assert isinstance(first, TopKAttention)
    plain = Attention(heads=first.heads, kv_heads=first.kv_heads, rope=first.rope)
    model = llama.theirs(spec.replace(blocks=(spec.blocks[0].replace(mixer=plain),) * len(spec.blocks)))
    AttentionInterface.register("chosen", chosen)
    model.set_attn_implementation("chosen")
    return model


@pytest.mark.parametrize("settings", [{}, {"kv_heads": 2}, {"tied": True}], ids=str)
def test_values_gradients_and_decoding(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("topk_attention", dtype=torch.float64, top=TOP, **settings)
    found = {**agree(ours, theirs(ours.spec), llama.mapped), **decode_alike(ours, theirs(ours.spec), llama.mapped)}
    proof("topk_attention", "transformers LlamaForCausalLM, keys chosen by sorting", **found)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top": 0}, "top must be positive, got 0"),
        ({"top": 4, "window": 8}, "window of 8 keys"),
        ({"top": 4, "alibi": Alibi()}, "alibi"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TopKAttention(heads=2, **settings)
