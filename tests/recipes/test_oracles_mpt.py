"""MPT with its linear biases against `transformers.MptForCausalLM`."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MptConfig, MptForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, tokens_for
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from windtunnel.model import LanguageModel

NAMES = {
    "transformer.wte.weight": "embedding.weight",
    "transformer.norm_f.weight": "norm.weight",
    "transformer.blocks.*.norm_1.weight": "blocks.*.residual.mixer_norm.weight",
    "transformer.blocks.*.norm_2.weight": "blocks.*.residual.mlp_norm.weight",
    "transformer.blocks.*.attn.out_proj.weight": "blocks.*.mixer.o.weight",
    "transformer.blocks.*.ffn.up_proj.weight": "blocks.*.mlp.up.weight",
    "transformer.blocks.*.ffn.down_proj.weight": "blocks.*.mlp.down.weight",
}


def theirs(spec: LanguageModel) -> MptForCausalLM:
    config = MptConfig(
        d_model=spec.width,
        n_heads=spec.blocks[0].mixer.heads,  # type: ignore[attr-defined]
        n_layers=len(spec.blocks),
        max_seq_len=spec.context,
        vocab_size=spec.vocab,
        attn_implementation="eager",
    )
    return MptForCausalLM(config)


def mapped(weights: Weights) -> dict[str, Tensor]:
    """MPT joins q, k and v."""
    found = renamed(weights, NAMES)
    for layer in {name.split(".")[1] for name in weights if name.startswith("blocks.")}:
        parts = [weights[f"blocks.{layer}.mixer.{each}.weight"] for each in "qkv"]
        found[f"transformer.blocks.{layer}.attn.Wqkv.weight"] = torch.cat(parts)
    return found


@pytest.mark.parametrize(
    "settings", [{}, {"heads": 6, "width": 48}, {"heads": 1, "width": 12, "layers": 1, "vocab": 41}], ids=str
)
def test_mpt(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("mpt_alibi", dtype=torch.float64, **settings)
    seen = {**agree(ours, theirs(ours.spec), mapped), **decode_alike(ours, theirs(ours.spec), mapped)}
    proof("mpt_alibi", "transformers MptForCausalLM", **seen)


@torch.no_grad()
def test_without_slopes_it_is_the_model_without_positions() -> None:
    """The null setting: vanishing slopes give its logits, and the published ones do not."""
    ours, none = (model_of("mpt_alibi", dtype=torch.float64, alibi=alibi) for alibi in (True, False))
    tokens = tokens_for(ours.spec)
    steep = [
        block.replace(mixer=block.mixer.replace(alibi=block.mixer.alibi.replace(steepness=4000.0)))
        for block in ours.spec.blocks
    ]
    flat = ours.spec.replace(blocks=tuple(steep)).build().double()
    flat.load_state_dict(none.state_dict())
    expected = none(tokens).logits
    torch.testing.assert_close(flat(tokens).logits, expected, rtol=0, atol=1e-12)
    assert (ours(tokens).logits - expected).abs().max() > 0.01


def test_initial_values() -> None:
    width, layers = 128, 3
    model = wt.build(wt.recipes.get("mpt_alibi")(width=width, layers=layers, vocab=999))
    expected = {
        "embedding.weight": math.sqrt(2 / width),
        "blocks.1.mixer.q.weight": math.sqrt(2 / width),
        "blocks.1.mixer.o.weight": math.sqrt(2 / width / (2 * layers)),
        "blocks.1.mlp.up.weight": math.sqrt(2 / width),
        "blocks.1.mlp.down.weight": math.sqrt(2 / (4 * width) / (2 * layers)),
    }
    for name, deviation in expected.items():
        assert model.get_parameter(name).std().item() == pytest.approx(deviation, rel=0.03), name
