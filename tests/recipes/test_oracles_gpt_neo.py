"""GPT-Neo and its options against `GPTNeoForCausalLM`, and by what its layers must and must not see."""

import math
from itertools import cycle, islice
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoConfig, GPTNeoForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, spec_of, tokens_for
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from windtunnel.errors import InputError
from windtunnel.layer import Context
from windtunnel.mixers import Attention
from windtunnel.mlps import Experts, GShard
from windtunnel.model import LanguageModel

NAMES = {"transformer.wte.weight": "embedding.weight"}
for kind in ("weight", "bias"):
    NAMES[f"transformer.ln_f.{kind}"] = f"norm.{kind}"
    NAMES[f"transformer.h.*.ln_1.{kind}"] = f"blocks.*.residual.mixer_norm.{kind}"
    NAMES[f"transformer.h.*.ln_2.{kind}"] = f"blocks.*.residual.mlp_norm.{kind}"
    NAMES[f"transformer.h.*.attn.attention.out_proj.{kind}"] = f"blocks.*.mixer.o.{kind}"
    NAMES[f"transformer.h.*.mlp.c_fc.{kind}"] = f"blocks.*.mlp.up.{kind}"
    NAMES[f"transformer.h.*.mlp.c_proj.{kind}"] = f"blocks.*.mlp.down.{kind}"
for each in "qkv":
    NAMES[f"transformer.h.*.attn.attention.{each}_proj.weight"] = f"blocks.*.mixer.{each}.weight"
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "band as wide as the text": {"window": 24, "layers": 2},
    "band of one": {"window": 1, "layers": 2},
    "all global": {"attention": "global", "hidden": 37, "vocab": 41},
    "local first": {"attention": "local,local,global", "window": 3, "heads": 2},
    "axial": {"axial": True, "rows": 8},
}


def theirs(spec: LanguageModel, attention: str = "global,local") -> GPTNeoForCausalLM:
    mixers = [block.mixer for block in spec.blocks if isinstance(block.mixer, Attention)]
    kinds = list(islice(cycle(attention.split(",")), len(spec.blocks)))
    config = GPTNeoConfig(
        vocab_size=spec.vocab,
        max_position_embeddings=spec.context,
        hidden_size=spec.width,
        num_layers=len(spec.blocks),
        num_heads=mixers[0].heads,
        intermediate_size=spec.blocks[0].mlp.hidden,  # type: ignore[union-attr]
        attention_types=[[kinds, 1]],
        window_size=max(mixer.window or 1 for mixer in mixers),
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",  # the only path that keeps the bands
    )
    return GPTNeoForCausalLM(config)


def mapped(weights: Weights) -> dict[str, Tensor]:
    """Axial tables become the one table of means that they stand for."""
    found = renamed(weights, NAMES)
    if "embedding.positions.weight" in weights:
        found["transformer.wpe.weight"] = weights["embedding.positions.weight"]
    else:
        rows, columns = weights["embedding.positions.axis0"], weights["embedding.positions.axis1"]
        found["transformer.wpe.weight"] = ((rows[:, None] + columns[None]) / 2).flatten(0, 1)
    return found


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_gpt_neo(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("gpt_neo", dtype=torch.float64, **settings)
    oracle = theirs(ours.spec, settings.get("attention", "global,local"))
    seen = {**agree(ours, oracle, mapped), **decode_alike(ours, oracle, mapped)}
    proof("gpt_neo", "transformers GPTNeoForCausalLM", **seen)


@pytest.mark.parametrize("doubled", [False, True])
def test_a_layer_without_attention_is_theirs_with_attention_silenced(doubled: bool, proof: Proof) -> None:
    """Output matrix and bias 0 leave out the attention; doubling is a change of the embedding beneath layer 0."""
    ours = model_of("gpt_neo", dtype=torch.float64, attention="none,local", doubled=doubled, layers=2)
    oracle = theirs(ours.spec, "global,local")

    def silenced(weights: Weights) -> dict[str, Tensor]:
        whole = {name: torch.zeros_like(tensor) for name, tensor in oracle.state_dict().items()}
        given = {
            **weights,
            **{f"blocks.0.mixer.{each}.weight": weights[f"blocks.1.mixer.{each}.weight"] for each in "qkv"},
            "blocks.0.mixer.o.weight": whole["transformer.h.0.attn.attention.out_proj.weight"].double(),
            "blocks.0.mixer.o.bias": whole["transformer.h.0.attn.attention.out_proj.bias"].double(),
        }
        for kind in ("weight", "bias"):
            given[f"blocks.0.residual.mixer_norm.{kind}"] = weights["norm.weight"]
            given[f"blocks.0.residual.mlp_norm.{kind}"] = weights[f"blocks.0.residual.norm.{kind}"]
        found = mapped(given)
        factor = 2 if doubled else 1
        head = {"lm_head.weight": found["transformer.wte.weight"]}
        tables = {
            f"transformer.{table}.weight": factor * found[f"transformer.{table}.weight"] for table in ("wte", "wpe")
        }
        return {**found, **tables, **head}

    oracle.config.tie_word_embeddings = False
    oracle.lm_head.weight = torch.nn.Parameter(oracle.lm_head.weight.detach().clone())
    proof("gpt_neo", "transformers GPTNeoForCausalLM, attention silenced", **agree(ours, oracle, silenced))


def test_scaled_scores_are_another_function() -> None:
    ours = model_of("gpt_neo", dtype=torch.float64)
    scale = 1 / math.sqrt(ours.spec.width // 4)
    blocks = tuple(block.replace(mixer=block.mixer.replace(scale=scale)) for block in ours.spec.blocks)
    other = ours.spec.replace(blocks=blocks).build().double()
    other.load_state_dict(ours.state_dict())
    with pytest.raises(AssertionError, match="logits"):
        agree(other, theirs(ours.spec), mapped)


def test_a_local_layer_sees_its_window_and_nothing_else() -> None:
    """The output at i feels token j if and only if 0 <= i - j < 5."""
    ours = model_of("gpt_neo", dtype=torch.float64, attention="local", window=5, layers=1)
    tokens = tokens_for(ours.spec, batch=1, length=20)
    before = ours(tokens).logits[0]
    for j in range(20):
        changed = tokens.clone()
        changed[0, j] = (changed[0, j] + 1) % ours.spec.vocab
        felt = (ours(changed).logits[0] != before).any(-1)
        assert felt.tolist() == [0 <= i - j < 5 for i in range(20)]


def test_a_linear_layer_is_the_first_code_bases(proof: Proof) -> None:
    """Its equations, one token at a time: softmax over the features of q, exp of k, 1e-6 beside the sum of keys."""
    mixer = model_of("gpt_neo-linear", dtype=torch.float64).blocks["1"].mixer
    x = torch.randn(2, 19, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k, v = (linear(x).view(2, 19, 2, 32) for linear in (mixer.q, mixer.k, mixer.v))
    sums, mass = torch.zeros(2, 2, 32, 32, dtype=torch.float64), torch.full((2, 2, 32), 1e-6, dtype=torch.float64)
    found = []
    for query, key, value in zip(q.softmax(-1).unbind(1), k.exp().unbind(1), v.unbind(1), strict=True):
        sums, mass = sums + key[..., None] * value[:, :, None], mass + key
        found.append((query[..., None] * sums).sum(2) / (query * mass).sum(-1, keepdim=True))
    expected = mixer.o(torch.stack(found, 1).flatten(2))
    error = ((mixer(x, Context(torch.arange(19)))[0] - expected).abs().max() / expected.abs().max()).item()
    assert error < 3e-6  # their 1e-6
    proof("gpt_neo", "linear layers: mesh-tensorflow's equations by a loop", values=error)


def test_experts_take_the_place_of_every_second_mlp() -> None:
    spec = spec_of("gpt_neo", layers=5, experts=16, every=2)
    kinds = [type(block.mlp).__name__ for block in spec.blocks]
    assert kinds == ["Dense", "Experts", "Dense", "Experts", "Dense"]
    sparse = spec.blocks[1].mlp
    assert isinstance(sparse, Experts)
    assert (sparse.hidden, sparse.active, sparse.activation, sparse.gated) == (4096, 2, "relu", False)
    assert sparse.router == GShard(
        capacity=1.25, group=1024, second="random", threshold=0.2, mesh=True, balance=1e-2, z_loss=0.0
    )


def test_initial_values_are_the_first_code_bases() -> None:
    width, heads, layers = 128, 4, 3
    model = wt.build(wt.recipes.get("gpt_neo")(width=width, heads=heads, layers=layers, vocab=999, context=512))
    expected = {
        "embedding.weight": 0.02,
        "embedding.positions.weight": 0.01,
        "blocks.1.mixer.q.weight": width**-0.5 * (width // heads) ** -0.5,
        "blocks.1.mixer.k.weight": width**-0.5,
        "blocks.1.mixer.v.weight": width**-0.5,
        "blocks.1.mixer.o.weight": width**-0.5,
        "blocks.1.mlp.up.weight": 0.02,
        "blocks.1.mlp.down.weight": 0.02 / math.sqrt(layers),
    }
    for name, deviation in expected.items():
        assert model.get_parameter(name).std().item() == pytest.approx(deviation, rel=0.03), name


def test_initial_scores_are_of_size_one() -> None:
    """Which 1/sqrt(head width) in the queries' initial values is for."""
    mixer = wt.build(wt.recipes.get("gpt_neo")(width=256, heads=4, layers=1)).blocks["0"].mixer
    x = torch.randn(4, 64, 256, generator=torch.Generator().manual_seed(0))
    q, k, _ = mixer.project(x, Context(torch.arange(64)))
    assert (mixer.scale * q @ k.mT).std().item() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attention": "global,lokal"}, r"attention.*'lokal'.*local"),
        ({"axial": True, "rows": 7}, r"rows: 7 does not divide the context of 96"),
        ({"axial": True, "rows": 0}, r"rows.*at least 1"),
        ({"window": 0}, r"window must be positive"),
        ({"experts": 0}, r"experts.*at least 1"),
        ({"experts": 4, "every": 0}, r"every.*at least 1"),
    ],
)
def test_refusals(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        spec_of("gpt_neo", **settings)
