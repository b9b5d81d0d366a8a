"""PaLM against `CohereForCausalLM`, its near twin with a mean-subtracting norm; identities of the parallel block."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CohereConfig, CohereForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import disturbed, model_of, tokens_for
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from windtunnel.layer import Context
from windtunnel.model import BlockLayer, LanguageModel
from windtunnel.spec import Spec

EXACT = 1e-12
HEAD = 12
ORACLE = "transformers `CohereForCausalLM`"
NAMES = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "norm.weight",
    "model.layers.*.input_layernorm.weight": "blocks.*.residual.norm.weight",
    **{f"model.layers.*.self_attn.{each}_proj.weight": f"blocks.*.mixer.{each}.weight" for each in "qkvo"},
    **{f"model.layers.*.mlp.{each}_proj.weight": f"blocks.*.mlp.{each}.weight" for each in ("gate", "up", "down")},
}


def cohere(spec: LanguageModel) -> CohereForCausalLM:
    config = CohereConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        intermediate_size=spec.blocks[0].mlp.hidden,  # type: ignore[union-attr]
        logit_scale=1 / math.sqrt(spec.width),
        num_hidden_layers=len(spec.blocks),
        num_attention_heads=4,
        num_key_value_heads=1,
        layer_norm_eps=1e-5,
        use_qk_norm=False,
        attention_bias=False,
        tie_word_embeddings=True,
        pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        attn_implementation="eager",
    )
    config.head_dim = HEAD
    return CohereForCausalLM(config)


def to_cohere(weights: Weights) -> dict[str, Tensor]:
    """Cohere rotates neighbours (2i, 2i + 1) where we rotate (i, i + r/2): the rows of each head change places."""
    found = renamed(weights, NAMES)
    for name, weight in found.items():
        if "q_proj" in name or "k_proj" in name:
            found[name] = weight.unflatten(0, (-1, 2, HEAD // 2)).transpose(1, 2).flatten(0, 2)
    return found


@pytest.mark.parametrize("settings", [{}, {"hidden": 37, "layers": 1, "vocab": 41}], ids=str)
def test_values_and_gradients(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("palm", dtype=torch.float64, centred=True, head_width=HEAD, **settings)
    proof("palm", ORACLE, **agree(ours, cohere(ours.spec), to_cohere))


def test_cached_decoding(proof: Proof) -> None:
    ours = model_of("palm", dtype=torch.float64, centred=True, head_width=HEAD)
    proof("palm", ORACLE, **decode_alike(ours, cohere(ours.spec), to_cohere))


def test_neighbours_may_be_rotated_instead() -> None:
    """The interleaved layout with the rows changed is the same function."""
    ours = model_of("palm", dtype=torch.float64, head_width=HEAD)
    spec = ours.spec.replace(blocks=tuple(interleaved(block) for block in ours.spec.blocks))
    other = spec.build().to(torch.float64)
    permuted = to_cohere(dict(ours.named_parameters()))
    state = {}
    for theirs, name in NAMES.items():
        for layer in range(len(spec.blocks)) if "*" in name else [0]:
            state[name.replace("*", str(layer))] = permuted[theirs.replace("*", str(layer))].detach()
    other.load_state_dict(state)
    tokens = tokens_for(spec)
    torch.testing.assert_close(other(tokens).logits, ours(tokens).logits, rtol=0, atol=EXACT)


def interleaved(block: Any) -> Spec:
    rope = block.mixer.rope.replace(layout="interleaved")
    changed: Spec = block.replace(mixer=block.mixer.replace(rope=rope))
    return changed


@torch.no_grad()
def test_a_parallel_block_is_the_sum_of_its_branches() -> None:
    block = model_of("palm", dtype=torch.float64).blocks["0"]
    assert isinstance(block, BlockLayer)
    x, context = torch.randn(2, 9, 64, dtype=torch.float64), Context(torch.arange(9))
    normal = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * block.residual.norm.weight
    gate, up = F.linear(normal, block.mlp.gate.weight), F.linear(normal, block.mlp.up.weight)
    mlp = F.linear(gate * torch.sigmoid(gate) * up, block.mlp.down.weight)
    expected = x + block.mixer(normal, context)[0] + mlp
    torch.testing.assert_close(block(x, context).hidden, expected, rtol=0, atol=EXACT)


@torch.no_grad()
def test_the_serial_block_is_another_function() -> None:
    parallel, serial = model_of("palm", layers=1), model_of("palm", layers=1, parallel=False)
    for name, parameter in serial.named_parameters():
        parameter.copy_(parallel.get_parameter(name.replace("mixer_norm", "norm").replace("mlp_norm", "norm")))
    tokens = tokens_for(parallel.spec)
    assert (parallel(tokens).logits - serial(tokens).logits).abs().max() > 0.01


@torch.no_grad()
def test_one_key_head_is_that_head_for_every_query() -> None:
    """Multi-query attention equals multi-head attention whose key and value matrices repeat."""
    ours = model_of("palm", dtype=torch.float64)
    blocks = tuple(block.replace(mixer=block.mixer.replace(kv_heads=4)) for block in ours.spec.blocks)
    other = ours.spec.replace(blocks=blocks).build().to(torch.float64)
    for name, parameter in other.named_parameters():
        weight = ours.get_parameter(name)
        parameter.copy_(weight.repeat(4, 1) if name.endswith(("mixer.k.weight", "mixer.v.weight")) else weight)
    tokens = tokens_for(ours.spec)
    torch.testing.assert_close(other(tokens).logits, ours(tokens).logits, rtol=0, atol=EXACT)


@torch.no_grad()
def test_initial_loss_and_logits() -> None:
    """With the input token's own column left out: CE = ln(V - 1) + 0.5, logits of deviation 1 (palm, section 3)."""
    model = wt.build(wt.recipes.get("palm")(vocab=256, layers=4, width=128, heads=4))
    tokens = tokens_for(model.spec, batch=8, length=128)
    logits = model(tokens).logits.scatter(-1, tokens[..., None], float("-inf"))
    rest = logits[logits.isfinite()]
    assert rest.std().item() == pytest.approx(1.0, abs=0.03)
    targets = (tokens + torch.randint(1, 256, tokens.shape)) % 256
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
    assert loss == pytest.approx(math.log(255) + 0.5, abs=0.15)
    assert model.embedding.weight.std().item() == pytest.approx(1.0, abs=0.02)
    assert model.head.table(model.embedding.weight).std().item() == pytest.approx(1 / math.sqrt(128), rel=0.02)


def test_cohere_counts_the_same_parameters() -> None:
    spec = disturbed(model_of("palm", centred=True, head_width=HEAD)).spec
    assert sum(p.numel() for p in spec.build().parameters()) == cohere(spec).num_parameters()
