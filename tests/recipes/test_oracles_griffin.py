"""Griffin, Hawk and their baseline against transformers' RecurrentGemma: logits, gradients, cached decoding.

Theirs always scales embeddings and bounds logits, has the two branches of the MLP in one `intermediate_size`, counts
the window with the query's own key, and accumulates its recurrence in float32 whatever the model's dtype.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

from tests.proof import Proof
from tests.recipes.cases import disturbed, spec_of, tokens_for
from tests.recipes.oracle import VALUES, Weights, agree, near, renamed
from tests.theirs import cache_name
from windtunnel import build
from windtunnel.embedding import Embedding, Head
from windtunnel.mixers import Attention, Recurrent
from windtunnel.mlps import Gated
from windtunnel.model import LanguageModel, LanguageModelLayer

BLOCK = "model.layers.*"
MLP = {
    f"{BLOCK}.mlp_block.{each}_proj.{kind}": f"blocks.*.mlp.{each}.{kind}"
    for each in ("gate", "up", "down")
    for kind in ("weight", "bias")
}
RECURRENT = {
    **{f"linear_{name}.{kind}": f"{name}.{kind}" for name in "xy" for kind in ("weight", "bias")},
    **{f"linear_out.{kind}": f"o.{kind}" for kind in ("weight", "bias")},
    "conv_1d.weight": "conv.weight",
    "conv_1d.bias": "conv.bias",
    "rg_lru.recurrent_param": "recurrence.decay",
    **{f"rg_lru.recurrent_gate_{kind}": f"recurrence.decay_gate.{kind}" for kind in ("weight", "bias")},
    **{f"rg_lru.input_gate_{kind}": f"recurrence.input_gate.{kind}" for kind in ("weight", "bias")},
}
ATTENTION = {**{f"{each}_proj.weight": f"{each}.weight" for each in "qkvo"}, "o_proj.bias": "o.bias"}
NORMS = {
    f"{BLOCK}.temporal_pre_norm.weight": "blocks.*.residual.mixer_norm.weight",
    f"{BLOCK}.channel_pre_norm.weight": "blocks.*.residual.mlp_norm.weight",
    "model.final_norm.weight": "norm.weight",
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "griffin": ("griffin", {"gate_blocks": 4, "heads": 4, "window": 7}),
    "griffin, wide recurrence": ("griffin", {"gate_blocks": 2, "heads": 2, "window": 5, "recurrent_width": 90}),
    "griffin, a width whose root bfloat16 rounds": (
        "griffin",
        {"width": 96, "gate_blocks": 4, "heads": 4, "window": 9},
    ),
    "hawk": ("hawk", {"heads": 4, "recurrent_width": 88}),
    "mqa_transformer": ("mqa_transformer", {"heads": 4}),
}


def ours(case: str) -> LanguageModelLayer:
    """A model in float64 with what theirs cannot be without."""
    recipe, settings = CASES[case]
    scaled = spec_of("griffin", width=settings.get("width", 64), scaled=True)
    spec = spec_of(recipe, **settings).replace(embedding=scaled.embedding, head=Head(tied=True, soft_cap=30.0))
    return disturbed(build(spec).to(torch.float64))


def theirs(spec: LanguageModel) -> RecurrentGemmaForCausalLM:
    recurrent = next((block.mixer for block in spec.blocks if isinstance(block.mixer, Recurrent)), None)
    attention = next((block.mixer for block in spec.blocks if isinstance(block.mixer, Attention)), None)
    mlp = spec.blocks[0].mlp
    assert isinstance(mlp, Gated)
    config = RecurrentGemmaConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        intermediate_size=2 * mlp.hidden,
        num_hidden_layers=len(spec.blocks),
        num_attention_heads=attention.heads if attention else recurrent.recurrence.blocks,  # type: ignore[union-attr]
        num_key_value_heads=1,
        lru_width=recurrent.recurrent_width if recurrent else None,
        attention_window_size=(attention.window if attention else None) or 10_000,
        block_types=["attention" if isinstance(block.mixer, Attention) else "recurrent" for block in spec.blocks],
        pad_token_id=None,
        attn_implementation="eager",
        use_cache=False,
    )
    return RecurrentGemmaForCausalLM(config)


def mapped(weights: Weights) -> dict[str, Tensor]:
    names = {**NORMS, **MLP, "model.embed_tokens.weight": "embedding.weight"}
    for index in {name.split(".")[1] for name in weights if name.startswith("blocks.")}:
        parts = RECURRENT if f"blocks.{index}.mixer.conv.weight" in weights else ATTENTION
        prefix = f"model.layers.{index}.temporal_block"
        names |= {f"{prefix}.{one}": f"blocks.{index}.mixer.{other}" for one, other in parts.items()}
    return {name: _shaped(name, value, weights) for name, value in renamed(weights, names).items()}


def _shaped(name: str, value: Tensor, weights: Weights) -> Tensor:
    if "norm" in name:
        return value - 1
    if name.endswith("conv_1d.weight"):
        return value[:, None]
    if name.endswith("gate_bias"):
        blocks = next(each.shape[0] for key, each in weights.items() if key.endswith("decay_gate.weight"))
        return value.view(blocks, -1)
    return value


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case: str, proof: Proof) -> None:
    model = ours(case)
    proof(CASES[case][0], "transformers RecurrentGemmaForCausalLM", **agree(model, theirs(model.spec), mapped))


@pytest.mark.parametrize("case", ["griffin", "mqa_transformer"])
@torch.no_grad()
def test_cached_decoding(case: str, proof: Proof) -> None:
    """A prompt and then single tokens: theirs starts its convolution anew in a longer call."""
    model = ours(case)
    other = theirs(model.spec).to(torch.float64).eval()
    other.load_state_dict(mapped(dict(model.named_parameters())), strict=False)
    tokens = tokens_for(model.spec, batch=2, length=24)
    state, errors = model.initial_state(2), []
    cache = {cache_name(other): DynamicCache(config=other.config)}
    for chunk in tokens.split([5] + [1] * 19, dim=1):
        position = torch.arange(state.position, state.position + chunk.shape[1])[None]
        out = model(chunk, state=state)
        found = other(chunk, position_ids=position, **cache, use_cache=True)
        state = out.state
        errors.append(near(out.logits, found.logits, VALUES, "logits"))
    proof(case, "transformers RecurrentGemmaForCausalLM", decoding=max(errors))


@torch.no_grad()
def test_the_first_document_of_a_packed_row(proof: Proof) -> None:
    """Theirs resets its state where positions begin anew, but leaks through convolution and attention after that."""
    model = ours("hawk")
    other = theirs(model.spec).to(torch.float64).eval()
    other.load_state_dict(mapped(dict(model.named_parameters())), strict=False)
    tokens = tokens_for(model.spec, batch=1, length=16)
    documents = torch.tensor([[0] * 9 + [1] * 7])
    packed = model(tokens, documents=documents).logits
    parts = [other(part).logits for part in tokens.split((9, 7), dim=1)]
    proof("hawk", "transformers RecurrentGemmaForCausalLM", packed=near(packed, torch.cat(parts, 1), VALUES, "packed"))


def test_embeddings_are_scaled_by_a_root_that_bfloat16_can_hold() -> None:
    for width in (64, 96, 2560, 4096, 768):
        scale = spec_of("griffin", width=width, layers=1, scaled=True).embedding.scale
        assert scale == torch.tensor(width**0.5).bfloat16().item()
    assert spec_of("griffin").embedding == Embedding()
