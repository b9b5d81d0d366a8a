"""What every recipe keeps at any size, not at one lucky one: widths, depths, vocabularies and lengths are drawn."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windtunnel as wt
from tests.recipes.cases import OWN, disturbed, state_tensors, tokens_for
from windtunnel.root import ModelLayer

EXACT = 1e-9  # float64
every_recipe = pytest.mark.parametrize("recipe", wt.recipes.names())
some = settings(max_examples=6)


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, Any]:
    """Whatever a recipe takes by keyword; widths that hold a number of even heads."""
    return {
        "vocab": draw(st.integers(2, 80)),
        "layers": draw(st.integers(1, 4)),
        "width": 8 * draw(st.sampled_from((1, 2, 4, 5, 6, 12))) * 2,
        "context": draw(st.sampled_from((36, 48, 60, 64))),
    }


def model_of(recipe: str, given_sizes: dict[str, Any], seed: int) -> ModelLayer:
    """A model of these sizes in float64, its biases and gains moved off their special values."""
    spec = wt.recipes.get(recipe)(**{**given_sizes, **OWN.get(recipe, {})})
    return disturbed(wt.build(spec, seed).double(), seed)


@every_recipe
@some
@given(sizes=sizes(), seed=st.integers(0, 99), data=st.data())
@torch.no_grad()
def test_decoding_in_chunks_equals_one_pass(recipe: str, sizes: dict[str, Any], seed: int, data: st.DataObject) -> None:
    model = model_of(recipe, sizes, seed)
    length = data.draw(st.integers(1, sizes["context"]), label="length")
    tokens = tokens_for(model.spec, batch=data.draw(st.integers(1, 3), label="batch"), length=length, seed=seed)
    whole, state, start = model(tokens), model.initial_state(tokens.shape[0]), 0
    while start < length:
        count = data.draw(st.integers(1, length - start), label="chunk")
        out = model(tokens[:, start : start + count], state=state)
        torch.testing.assert_close(out.logits, whole.logits[:, start : start + count], rtol=0, atol=EXACT)
        state, start = out.state, start + count
    held = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(state))
    assert held == tokens.shape[0] * model.state_bytes(length, element=8)


@every_recipe
@some
@given(sizes=sizes(), seed=st.integers(0, 99), data=st.data())
@torch.no_grad()
def test_nothing_before_a_token_feels_it(recipe: str, sizes: dict[str, Any], seed: int, data: st.DataObject) -> None:
    model = model_of(recipe, sizes, seed)
    length = data.draw(st.integers(2, sizes["context"]), label="length")
    at = data.draw(st.integers(1, length - 1), label="at")
    tokens = tokens_for(model.spec, length=length, seed=seed)
    changed = tokens.clone()
    changed[:, at:] = torch.randint(0, model.spec.vocab, changed[:, at:].shape)
    before, after = model(tokens).logits, model(changed).logits
    torch.testing.assert_close(before[:, :at], after[:, :at], rtol=0, atol=EXACT)
    assert model(tokens[:, :at]).logits.shape == (2, at, model.spec.vocab)
    torch.testing.assert_close(before[:, :at], model(tokens[:, :at]).logits, rtol=0, atol=EXACT)
