"""A short convolution in front of a mixer: against transformers and torch; its null, its state, any mixer behind it."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, spec_of, tokens_for
from tests.recipes.oracle import VALUES, Weights, agree, near
from tests.recipes.test_oracles_llama import mapped as as_llama
from tests.recipes.test_oracles_llama import theirs as llama_of
from windtunnel.inference import states
from windtunnel.interop.families import family_named, written
from windtunnel.layer import Context
from windtunnel.mixers import (
    RGLRU,
    Attention,
    Convolved,
    DiffAttention,
    LinearAttention,
    Mamba,
    Mixer,
    Recurrent,
    UnmaskedAttention,
)
from windtunnel.model import LanguageModel
from windtunnel.planning.facts import Facts
from windtunnel.positions import Rope
from windtunnel.selftest.causality import in_chunks

EXACT = 1e-12
WIDTH = 8
BEHIND: dict[str, Mixer] = {
    "attention": Attention(heads=2, rope=Rope()),
    "a window": Attention(heads=2, window=4),
    "differential attention": DiffAttention(heads=2, rope=Rope(), depth=1),
    "linear attention": LinearAttention(heads=2, normalisation="kernel"),
    "Griffin's recurrence": Recurrent(recurrent_width=6, recurrence=RGLRU(blocks=2)),
    "Mamba": Mamba(hidden=6, state=3),
    "another convolution": Convolved(mixer=Attention(heads=2), taps=2),
}


def built(mixer: Mixer, seed: int = 0) -> Any:
    """The layer of a mixer in float64, with random parameters."""
    draw = torch.Generator().manual_seed(seed)
    layer = mixer.build(WIDTH).to(torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return layer


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def context(first: int, length: int, documents: Tensor | None = None) -> Context:
    return Context(torch.arange(first, first + length), documents, reach=first + length)


def without_convolution(weights: Weights) -> dict[str, Tensor]:
    """The same under the names of a Llama."""
    plain = {name.replace("mixer.mixer.", "mixer."): value for name, value in weights.items()}
    return {name: value for name, value in plain.items() if ".conv." not in name}


def theirs(spec: LanguageModel) -> LlamaForCausalLM:
    """Transformers' Llama with torch's own convolution added to what every attention reads."""
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, Convolved)
    model = llama_of(spec.replace(blocks=tuple(block.replace(mixer=mixer.mixer) for block in spec.blocks)))
    for layer in model.model.layers:
        layer.self_attn.conv = nn.Conv1d(
            spec.width, spec.width, mixer.taps, groups=spec.width, padding=mixer.taps - 1, bias=False
        )
        layer.self_attn.register_forward_pre_hook(_convolve, with_kwargs=True)
    return model


def _convolve(attention: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    x = named["hidden_states"]
    nearby = attention.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)  # type: ignore[operator]
    return args, {**named, "hidden_states": x + nearby}


def mapped(weights: Weights) -> dict[str, Tensor]:
    taps = {
        f"model.layers.{name.split('.')[1]}.self_attn.conv.weight": value[:, None]
        for name, value in weights.items()
        if ".conv." in name
    }
    return as_llama(without_convolution(weights)) | taps


@pytest.mark.parametrize("own", [{}, {"kv_heads": 1, "tied": True}, {"convolution": 3, "head_width": 10}])
def test_it_is_transformers_llama_behind_torchs_convolution(own: dict[str, Any], proof: Proof) -> None:
    ours = model_of("llama-convolution", dtype=torch.float64, **own)
    other = theirs(ours.spec)
    found = agree(ours, other, mapped)
    other.load_state_dict(mapped(dict(ours.named_parameters())), strict=False)
    tokens = tokens_for(ours.spec)
    with torch.no_grad():
        stepped, _ = in_chunks(ours, tokens)
        found["decoding"] = near(stepped, other(tokens).logits, VALUES, "decoding")
    proof("`llama` with a convolution", "transformers `LlamaForCausalLM` behind `torch.nn.Conv1d`", **found)


def test_without_taps_it_is_llama() -> None:
    """Of no effect where all taps are 0, and not there at all where none are asked for."""
    convolved, plain = model_of("llama-convolution"), model_of("llama-grouped", tied=False)
    with torch.no_grad():
        for name, parameter in convolved.named_parameters():
            if ".conv." in name:
                parameter.zero_()
    plain.load_state_dict(without_convolution(dict(convolved.named_parameters())))
    tokens = tokens_for(plain.spec)
    assert torch.equal(convolved(tokens).logits, plain(tokens).logits)
    assert spec_of("llama", convolution=0) == spec_of("llama", convolution=None) == spec_of("llama")
    assert "Convolved" not in spec_of("llama").canonical()


def test_taps_start_as_torchs_do() -> None:
    """Uniform in ±1/sqrt(taps), whatever the recipe's initialisation."""
    model = wt.build(spec_of("llama-convolution", width=2048, layers=1, heads=4, hidden=8))
    ours = model.get_parameter("blocks.0.mixer.conv.weight").detach()
    torchs = nn.Conv1d(2048, 2048, 4, groups=2048, bias=False).weight.detach()
    assert ours.shape == (2048, 4)
    for values in (ours, torchs):
        assert 0.499 < values.abs().max().item() <= 0.5
        assert values.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.02)
        assert abs(values.mean().item()) < 5 / math.sqrt(12 * values.numel())


@given(behind=st.sampled_from(list(BEHIND)), taps=st.integers(2, 5), data=st.data())
@settings(max_examples=25)
def test_any_mixer_goes_on_from_its_state(behind: str, taps: int, data: st.DataObject) -> None:
    layer, x = built(Convolved(mixer=BEHIND[behind], taps=taps)), random(2, 12, WIDTH)
    whole, nothing = layer(x, context(0, 12))
    assert nothing is None
    state = layer.initial_state(2, x.device, x.dtype)
    parts, place = [], 0
    while place < 12:
        size = data.draw(st.integers(1, 12 - place))
        y, state = layer(x[:, place : place + size], context(place, size), state)
        parts.append(y)
        place += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=EXACT)
    held = sum(tensor.numel() * tensor.element_size() for tensor in states.tensors(state))
    assert held == 2 * layer.state_bytes(12, 8)
    assert state.past.untyped_storage().nbytes() == state.past.numel() * 8  # no view of a longer text


@pytest.mark.parametrize("behind", BEHIND)
def test_no_tap_reaches_into_another_document(behind: str) -> None:
    layer, x = built(Convolved(mixer=BEHIND[behind])), random(1, 12, WIDTH)
    documents = torch.tensor([[0] * 2 + [1] * 6 + [2] * 4])
    packed, _ = layer(x, context(0, 12, documents))
    alone = [layer(part, context(0, part.shape[1]))[0] for part in x.split((2, 6, 4), dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=0, atol=EXACT)


def test_a_pair_is_one_key() -> None:
    """What attention alone cannot do in one layer: the key of a token says what came before it (induction)."""
    layer = Convolved(mixer=Attention(heads=1), taps=2).build(WIDTH)
    seen: list[Tensor] = []
    layer.mixer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        layer.conv.weight.copy_(torch.tensor([1.0, -1.0]).expand(WIDTH, 2))
        for linear in (layer.mixer.q, layer.mixer.k, layer.mixer.v, layer.mixer.o):
            linear.weight.copy_(torch.eye(WIDTH))
    x = torch.eye(WIDTH)[None]
    layer(x, context(0, WIDTH))
    assert torch.equal(seen[0][0, 1:], x[0, :-1])
    assert not seen[0][0, 0].any()


def test_it_is_as_causal_as_what_is_behind_it() -> None:
    assert Convolved(mixer=Attention(heads=2)).causal
    assert not Convolved(mixer=UnmaskedAttention(heads=2)).causal


def test_a_plan_sees_the_heads_behind_it() -> None:
    sizes = {"layers": 2, "width": 32, "vocab": 64, "context": 16, "heads": 4, "kv_heads": 2}
    plain, convolved = (Facts(wt.recipes.llama(**sizes, convolution=taps), 16, torch.float32) for taps in (None, 4))
    for facts in (plain, convolved):
        assert [(facts.heads(block), facts.kv_heads(block)) for block in facts.blocks] == [(4, 2)] * 2
    more = convolved.activations.blocks[0] - plain.activations.blocks[0]
    assert convolved.activations.replaced == ()
    assert 0 < more <= 3 * 32 * 4  # what the taps read, once or padded, and their sum


@pytest.mark.parametrize("taps", [1, -4])
def test_too_few_taps_are_refused(taps: int) -> None:
    with pytest.raises(ValueError, match=f"taps must be at least 2, got {taps}"):
        spec_of("llama", convolution=taps)


def test_no_family_of_transformers_says_it() -> None:
    with pytest.raises(ValueError, match=r"blocks.0.mixer is Convolved, not Attention"):
        written(family_named("llama", "--family"), spec_of("llama-convolution"))
