"""GPT-J against `transformers.GPTJForCausalLM`."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPTJConfig, GPTJForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, tokens_for
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from windtunnel.layer import Context
from windtunnel.mixers import Attention
from windtunnel.model import LanguageModel, LanguageModelLayer
from windtunnel.positions import Rope

NAMES = {"transformer.wte.weight": "embedding.weight"}
for kind in ("weight", "bias"):
    NAMES[f"lm_head.{kind}"] = f"head.{kind}"
    NAMES[f"transformer.ln_f.{kind}"] = f"norm.{kind}"
    NAMES[f"transformer.h.*.ln_1.{kind}"] = f"blocks.*.residual.norm.{kind}"
    NAMES[f"transformer.h.*.mlp.fc_in.{kind}"] = f"blocks.*.mlp.up.{kind}"
    NAMES[f"transformer.h.*.mlp.fc_out.{kind}"] = f"blocks.*.mlp.down.{kind}"
for theirs_, ours_ in {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}.items():
    NAMES[f"transformer.h.*.attn.{theirs_}.weight"] = f"blocks.*.mixer.{ours_}.weight"
SETTINGS: dict[str, dict[str, Any]] = {
    "quarter": {},
    "half, odd sizes": {"width": 36, "heads": 3, "rotary_width": 6, "hidden": 37, "vocab": 41, "layers": 2},
    "all of the head": {"heads": 2, "rotary_width": 32, "layers": 1},
}


def rope_of(spec: LanguageModel) -> Rope:
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, Attention)
    assert mixer.rope is not None
    return mixer.rope


def theirs(spec: LanguageModel) -> GPTJForCausalLM:
    config = GPTJConfig(
        vocab_size=spec.vocab,
        n_positions=spec.context,
        n_embd=spec.width,
        n_layer=len(spec.blocks),
        n_head=spec.blocks[0].mixer.heads,  # type: ignore[attr-defined]
        n_inner=spec.blocks[0].mlp.hidden,  # type: ignore[union-attr]
        rotary_dim=rope_of(spec).width,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    return GPTJForCausalLM(config)


def mapped(weights: Weights) -> dict[str, Tensor]:
    return renamed(weights, NAMES)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_gpt_j(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("gpt_j", dtype=torch.float64, **settings)
    seen = {**agree(ours, theirs(ours.spec), mapped), **decode_alike(ours, theirs(ours.spec), mapped)}
    proof("gpt_j", "transformers GPTJForCausalLM", **seen)


def in_halves(model: LanguageModelLayer, permuted: bool) -> LanguageModelLayer:
    """The same weights in the other layout; `permuted`: rows of each head's q and k in the order that it asks for."""
    rope = rope_of(model.spec)
    blocks = tuple(b.replace(mixer=b.mixer.replace(rope=rope.replace(layout="half"))) for b in model.spec.blocks)
    other: LanguageModelLayer = model.spec.replace(blocks=blocks).build().double()
    weights = model.state_dict()
    heads, rotated = blocks[0].mixer.heads, rope.width
    head_width = model.spec.width // heads
    order = [*range(0, rotated, 2), *range(1, rotated, 2), *range(rotated, head_width)]
    rows = torch.cat([torch.tensor(order) + head * head_width for head in range(heads)])
    for name, weight in weights.items():
        if permuted and name.endswith(("q.weight", "k.weight")):
            weights[name] = weight[rows]
    other.load_state_dict(weights)
    return other


@torch.no_grad()
def test_layouts_are_one_function_up_to_the_rows_of_queries_and_keys() -> None:
    model = model_of("gpt_j", dtype=torch.float64)
    tokens = tokens_for(model.spec)
    expected = model(tokens).logits
    torch.testing.assert_close(in_halves(model, permuted=True)(tokens).logits, expected, rtol=0, atol=1e-12)
    assert (in_halves(model, permuted=False)(tokens).logits - expected).abs().max() > 0.01


@torch.no_grad()
def test_both_branches_read_one_norm_and_are_added_once() -> None:
    model = model_of("gpt_j", dtype=torch.float64)
    block = model.blocks["0"]
    x = torch.randn(2, 9, model.spec.width, dtype=torch.float64)
    context = Context(torch.arange(9))
    n = block.residual.norm(x)
    expected = x + block.mixer(n, context)[0] + block.mlp(n, context).hidden
    assert torch.equal(block(x, context).hidden, expected)
    for parameter in (block.mixer.o.weight, block.mlp.down.weight, block.mlp.down.bias):
        parameter.zero_()
    assert torch.equal(block(x, context).hidden, x)


def test_a_quarter_of_a_head_is_rotated() -> None:
    found = {width: rope_of(wt.recipes.get("gpt_j")(width=width, heads=4)).width for width in (8, 24, 64, 160, 1024)}
    assert found == {8: 2, 24: 2, 64: 4, 160: 10, 1024: 64}
    assert rope_of(wt.recipes.get("gpt_j")(size="6b")).width == 64


def test_initial_values_are_cut_normals() -> None:
    """Haiku's: cut at two deviations and not rescaled, which leaves 0.8796 of the deviation."""
    width, layers, vocab = 128, 3, 999
    model = wt.build(wt.recipes.get("gpt_j")(width=width, layers=layers, vocab=vocab))
    expected = {
        "embedding.weight": vocab**-0.5,
        "head.weight": width**-0.5,
        "blocks.1.mixer.q.weight": width**-0.5,
        "blocks.1.mixer.o.weight": 2 / layers / math.sqrt(width),
        "blocks.1.mlp.up.weight": width**-0.5,
        "blocks.1.mlp.down.weight": 2 / layers / math.sqrt(width),
    }
    for name, deviation in expected.items():
        values = model.get_parameter(name)
        assert values.std().item() == pytest.approx(0.8796 * deviation, rel=0.03), name
        assert 1.99 * deviation < values.abs().max().item() <= 2 * deviation, name
