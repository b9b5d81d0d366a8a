"""Efficient attention against `GPT2LMHeadModel` whose attention function is the weights of every pair, written here."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import SIZES, model_of
from tests.recipes.oracle import agree, decode_alike
from tests.recipes.test_oracles_gpt import gpt2, to_gpt2


def weights_softmax(q: Tensor, k: Tensor, causal: Tensor) -> Tensor:
    """Section 3 of the paper for each prefix: both softmaxes, one over features, one over the prefix's positions."""
    queries, keys = q.exp(), k.exp()
    masses = torch.einsum("ts,bhsc->bhtc", causal, keys)
    each = queries / queries.sum(-1, keepdim=True) / masses
    return torch.einsum("bhtc,bhsc->bhts", each, keys) * causal


def weights_scaling(q: Tensor, k: Tensor, causal: Tensor) -> Tensor:
    return q @ k.transpose(-1, -2) * causal / causal.sum(-1, keepdim=True)


def weights_elu(q: Tensor, k: Tensor, causal: Tensor) -> Tensor:
    q, k = (torch.where(x > 0, x + 1, x.clamp(max=0).exp()) for x in (q, k))
    pairs = q @ k.transpose(-1, -2) * causal
    return pairs / pairs.sum(-1, keepdim=True)


def pairwise(weights: Any) -> Any:
    """An attention function of transformers: heads first in, positions first out."""

    def forward(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **rest: Any) -> tuple[Tensor, None]:
        causal = torch.ones(q.shape[2], k.shape[2], dtype=q.dtype).tril(k.shape[2] - q.shape[2])
        return (weights(q, k, causal) @ v).transpose(1, 2), None

    return forward


CASES = {
    "efficient_attention": weights_softmax,
    "efficient_attention-scaling": weights_scaling,
    "efficient_attention-elu": weights_elu,
}
for name, rule in CASES.items():
    ALL_ATTENTION_FUNCTIONS.register(f"pairwise_{name}", pairwise(rule))


def oracle(case: str, model: Any) -> GPT2LMHeadModel:
    theirs = gpt2(model.spec)
    theirs.config._attn_implementation = f"pairwise_{case}"
    for block in theirs.transformer.h:
        block.attn.num_heads = model.spec.blocks[0].mixer.heads
        block.attn.head_dim = model.spec.width // block.attn.num_heads
    return theirs


@pytest.mark.parametrize("case", CASES)
def test_against_pairwise_weights_in_gpt2(case: str, proof: Proof) -> None:
    model = model_of(case, dtype=torch.float64, positions=True)
    found = {**agree(model, oracle(case, model), to_gpt2), **decode_alike(model, oracle(case, model), to_gpt2)}
    what = "" if case == "efficient_attention" else f" ({case.split('-')[1]})"
    proof("efficient_attention", f"transformers GPT2LMHeadModel with the weights of every pair{what}", **found)


def test_the_oracle_tells_the_forms_apart() -> None:
    model = model_of("efficient_attention", dtype=torch.float64)
    with pytest.raises(AssertionError, match="logits"):
        agree(model, oracle("efficient_attention-elu", model), to_gpt2)


def test_the_parameters_of_gpt3() -> None:
    ours, theirs = (wt.recipes.get(name)(**SIZES).build() for name in ("efficient_attention", "gpt3"))
    shapes = [{name: parameter.shape for name, parameter in model.named_parameters()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
