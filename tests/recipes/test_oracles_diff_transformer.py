"""Differential attention against `DiffLlamaForCausalLM`, against a loop over its equations, and its identities."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DiffLlamaConfig, DiffLlamaForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, tokens_for
from tests.recipes.oracle import Weights, agree, decode_alike, largest, renamed
from windtunnel.init import Normal, initialize
from windtunnel.layer import Context
from windtunnel.mixers import DiffAttention
from windtunnel.mixers.differential import DiffAttentionLayer
from windtunnel.model import LanguageModel, LanguageModelLayer

EXACT = 1e-12
EPS = 1e-5  # DiffLlama has one eps for all of its norms
ORACLE = "transformers `DiffLlamaForCausalLM`"
NAMES = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
    "model.layers.*.input_layernorm.weight": "blocks.*.residual.mixer_norm.weight",
    "model.layers.*.post_attention_layernorm.weight": "blocks.*.residual.mlp_norm.weight",
    **{f"model.layers.*.self_attn.{each}_proj.weight": f"blocks.*.mixer.{each}.weight" for each in "qkvo"},
    **{f"model.layers.*.self_attn.lambda_{each}": f"blocks.*.mixer.lambda_{each}" for each in ("q1", "k1", "q2", "k2")},
    **{f"model.layers.*.mlp.{each}_proj.weight": f"blocks.*.mlp.{each}.weight" for each in ("gate", "up", "down")},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "multi-head": {"heads": 4},
    "grouped": {"heads": 4, "kv_heads": 2},
    "one group": {"heads": 4, "kv_heads": 1, "tied": True},
    "odd sizes": {"heads": 3, "width": 60, "hidden": 37, "vocab": 41, "layers": 2},
}


def model(settings: dict[str, Any]) -> LanguageModelLayer:
    return model_of("diff_transformer", dtype=torch.float64, gain=False, eps=EPS, **settings)


def diff_llama(spec: LanguageModel) -> DiffLlamaForCausalLM:
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, DiffAttention)
    return DiffLlamaForCausalLM(
        DiffLlamaConfig(
            vocab_size=spec.vocab,
            hidden_size=spec.width,
            intermediate_size=spec.blocks[0].mlp.hidden,  # type: ignore[union-attr]
            num_hidden_layers=len(spec.blocks),
            num_attention_heads=2 * mixer.heads,
            num_key_value_heads=2 * (mixer.kv_heads or mixer.heads),
            rms_norm_eps=EPS,
            tie_word_embeddings=spec.head.tied,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            attn_implementation="eager",
        )
    )


def to_diff_llama(weights: Weights) -> dict[str, Tensor]:
    """DiffLlama keeps the first maps of all heads, then the second maps; and halves of the values likewise."""
    known = {theirs: ours for theirs, ours in NAMES.items() if "*" in ours or ours in weights}
    found = renamed(weights, known)
    head_width = weights["blocks.0.mixer.lambda_q1"].shape[0]
    for name, weight in found.items():
        if any(each in name for each in ("q_proj", "k_proj", "v_proj")):
            found[name] = weight.unflatten(0, (-1, 2, head_width)).transpose(0, 1).flatten(0, 2)
    return found


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_values_and_gradients(settings: dict[str, Any], proof: Proof) -> None:
    ours = model(settings)
    proof("diff_transformer", ORACLE, **agree(ours, diff_llama(ours.spec), to_diff_llama))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cached_decoding(settings: dict[str, Any], proof: Proof) -> None:
    ours = model(settings)
    proof("diff_transformer", ORACLE, **decode_alike(ours, diff_llama(ours.spec), to_diff_llama))


def test_the_size_called_diffllama_is_its_default_configuration() -> None:
    spec, config = wt.recipes.get("diff_transformer")(size="diffllama"), DiffLlamaConfig()
    with torch.device("meta"):
        assert sum(p.numel() for p in spec.build().parameters()) == DiffLlamaForCausalLM(config).num_parameters()
    assert {spec.norm.eps, spec.blocks[0].mixer.eps} == {config.rms_norm_eps}
    assert (spec.vocab, spec.context, spec.head.tied) == (
        config.vocab_size,
        config.max_position_embeddings,
        config.tie_word_embeddings,
    )


def layer_of(width: int = 24, **fields: Any) -> DiffAttentionLayer:
    """One layer in float64 without positions, weights of order 1."""
    settings: dict[str, Any] = {"heads": 2, "depth": 3, "gain": False, **fields}
    layer = DiffAttention(**settings).build(width).to(torch.float64)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.normal_(0, 0.1 if "lambda" in name else parameter.shape[-1] ** -0.5)
    assert isinstance(layer, DiffAttentionLayer)
    return layer


def run(layer: DiffAttentionLayer, x: Tensor) -> Tensor:
    mixed: Tensor = layer(x, Context(torch.arange(x.shape[1])))[0]
    return mixed


def by_loops(layer: DiffAttentionLayer, x: Tensor, lam: Tensor, eps: float, naive: bool = False) -> Tensor:
    """Head after head from section 2; naive: the authors' other pairing of key heads under grouping."""
    d, repeats = layer.head_width, layer.heads // layer.kv_heads
    q, k, v = (F.linear(x, each.weight) for each in (layer.q, layer.k, layer.v))
    hidden = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype).triu(1)

    def attention_map(head: int, key_head: int) -> Tensor:
        rows = slice(head * d, head * d + d)
        keys = slice(key_head * d, key_head * d + d)
        return (q[..., rows] @ k[..., keys].transpose(-1, -2) / math.sqrt(d) + hidden).softmax(-1)

    heads = []
    for i in range(layer.heads):
        pair = [(2 * i + s) // repeats if naive else 2 * (i // repeats) + s for s in (0, 1)]
        difference = attention_map(2 * i, pair[0]) - lam * attention_map(2 * i + 1, pair[1])
        values = v[..., (i // repeats) * 2 * d : (i // repeats + 1) * 2 * d]
        head = difference @ values
        heads.append(head / (head.square().mean(-1, keepdim=True) + eps).sqrt() * (1 - layer.lambda_init))
    return F.linear(torch.cat(heads, -1), layer.o.weight)


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 2), (3, 1), (6, 2)])
@pytest.mark.parametrize("training", [False, True])
def test_grouped_heads_pair_first(heads: int, groups: int, training: bool, proof: Proof) -> None:
    layer = layer_of(width=8 * heads, heads=heads, kv_heads=groups)
    x = torch.randn(2, 11, 8 * heads, dtype=torch.float64)
    with torch.set_grad_enabled(training):
        ours, lam = run(layer, x), layer.current_lambda().double()
        looped = by_loops(layer, x, lam, EPS)
        torch.testing.assert_close(ours, looped, rtol=0, atol=EXACT)
        proof("diff_transformer", "the paper's equations, head by head", values=largest(ours, looped))
        naive = by_loops(layer, x, lam, EPS, naive=True)
    assert ((ours - naive).abs().max() < 1e-6) == (heads == groups)


@torch.no_grad()
def test_without_the_second_map_it_is_ordinary_attention_normalised() -> None:
    """λ = 0 through the parameters: λ_q1 = 0, λ_q2 · λ_k2 = ln(1 + λ_init)."""
    layer = layer_of()
    layer.lambda_q1.zero_()
    layer.lambda_q2.fill_(1.0)
    layer.lambda_k2.fill_(math.log(1 + layer.lambda_init) / layer.head_width)
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    expected = by_loops(layer, x, torch.tensor(0.0, dtype=torch.float64), EPS)
    torch.testing.assert_close(run(layer, x), expected, rtol=0, atol=1e-6)  # λ itself is in float32
    d = layer.head_width
    q = F.linear(x, layer.q.weight).unflatten(-1, (-1, d)).transpose(1, 2)[:, 0::2]
    k = F.linear(x, layer.k.weight).unflatten(-1, (-1, d)).transpose(1, 2)[:, 0::2]
    v = F.linear(x, layer.v.weight).unflatten(-1, (-1, 2 * d)).transpose(1, 2)
    ordinary = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    normal = F.rms_norm(ordinary, (2 * d,), eps=EPS) * (1 - layer.lambda_init)
    torch.testing.assert_close(
        expected, F.linear(normal.transpose(1, 2).flatten(2), layer.o.weight), rtol=0, atol=EXACT
    )


@torch.no_grad()
def test_twin_maps_do_not_depend_on_lambda() -> None:
    """Equal maps leave (1 - λ) A V, whose size the head norm takes away and whose sign it keeps."""
    layer = layer_of(eps=0.0)
    for linear in (layer.q, layer.k):
        pairs = linear.weight.view(2, 2, layer.head_width, -1)
        pairs[:, 1] = pairs[:, 0]
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    found = {}
    for lam in (-0.5, 0.25, 0.75, 1.5):
        layer.lambda_q1.zero_()
        layer.lambda_q2.fill_(1.0)
        layer.lambda_k2.fill_(math.log(1 + layer.lambda_init - lam) / layer.head_width)
        found[lam] = run(layer, x)
        assert layer.current_lambda().item() == pytest.approx(lam, abs=1e-6)
    torch.testing.assert_close(found[-0.5], found[0.25], rtol=0, atol=EXACT)
    torch.testing.assert_close(found[0.75], found[0.25], rtol=0, atol=EXACT)
    torch.testing.assert_close(found[1.5], -found[0.25], rtol=0, atol=EXACT)


@torch.no_grad()
def test_rows_of_the_difference_sum_to_one_minus_lambda() -> None:
    """Values of all ones read the row sums."""
    layer = layer_of(eps=0.0)
    x = torch.randn(1, 9, 24, dtype=torch.float64)
    x[..., 0] = 1.0
    layer.v.weight.zero_()
    layer.v.weight[:, 0] = 1.0
    seen = []
    layer.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    run(layer, x)
    expected = 1 - layer.current_lambda().double()
    torch.testing.assert_close(seen[0], expected.expand_as(seen[0]), rtol=0, atol=EXACT)


def test_lambda_starts_where_the_paper_says() -> None:
    expected = [
        0.20000,
        0.35551,
        0.47071,
        0.55606,
        0.61928,
        0.66612,
        0.70082,
        0.72653,
        0.74557,
        0.75968,
        0.77013,
        0.77787,
    ]
    for depth, value in enumerate(expected):
        assert DiffAttention(heads=1, depth=depth).lambda_init == pytest.approx(value, abs=5e-6)
    assert DiffAttention(heads=1, depth=5, constant=0.5).lambda_init == 0.5
    assert DiffAttention(heads=1, depth=27).lambda_init == pytest.approx(0.79982, abs=5e-6)
    spec = wt.recipes.get("diff_transformer")(layers=5, width=64)
    assert [block.mixer.depth for block in spec.blocks] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("head_width", "deviation"), [(16, 0.057), (32, 0.080), (64, 0.113), (128, 0.162)])
def test_lambda_spreads_at_the_start_as_it_should(head_width: int, deviation: float) -> None:
    """Mean λ_init, deviation about 0.01 sqrt(2 d)."""
    layer = DiffAttention(heads=1, depth=0, head_width=head_width).build(8)
    assert isinstance(layer, DiffAttentionLayer)
    found = []
    for seed in range(300):
        initialize(layer, Normal(), seed, layers=1)
        found.append(layer.current_lambda().item())
    values = torch.tensor(found)
    assert values.mean().item() == pytest.approx(0.2, abs=4 * deviation / math.sqrt(300))
    assert values.std().item() == pytest.approx(deviation, rel=4 / math.sqrt(600))


def test_the_learned_gain_is_one_vector_for_all_heads() -> None:
    model = wt.build(wt.recipes.get("diff_transformer")(layers=1, width=64, heads=2))
    assert model.get_parameter("blocks.0.mixer.norm.weight").shape == (32,)
    tokens = tokens_for(model.spec)
    without = wt.build(wt.recipes.get("diff_transformer")(layers=1, width=64, heads=2, gain=False))
    assert torch.equal(model(tokens).logits, without(tokens).logits)
