"""Sparse recipes against transformers' models of the same blocks, whose masks are written out pair by pair here.

Each model's plain attention is given a mask for every layer and head, made in Python from the papers' sets:
Longformer's blocks are GPT-NeoX's, Sparse Transformer's are GPT-2's, BigBird's are Llama's. Decoding is held to their
pass over everything, by chunks that cross every window.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM

import windtunnel as wt
from tests.mixers.test_patterns import allowed
from tests.proof import Proof
from tests.recipes import test_oracles_gpt as gpt
from tests.recipes import test_oracles_llama as llama
from tests.recipes.cases import CONTEXT, disturbed, model_of, spec_of, tokens_for
from tests.recipes.oracle import CHUNKS, VALUES, Weights, agree, decode_alike, near, renamed
from windtunnel.mixers import Attention, Pattern, SparseAttention
from windtunnel.model import LanguageModel, LanguageModelLayer

LOWEST = torch.finfo(torch.float64).min


def masks(mixer: SparseAttention, length: int) -> Tensor:
    """[1 h t t], 0 where a query may attend and the lowest number elsewhere."""

    def table(pattern: Pattern) -> list[list[float]]:
        return [[0.0 if allowed(pattern, i, j) else LOWEST for j in range(length)] for i in range(length)]

    tables = torch.tensor([table(pattern) for pattern in mixer.patterns], dtype=torch.float64)
    return tables.expand(mixer.heads, -1, -1).unsqueeze(0)


def masked(theirs: nn.Module, attentions: list[nn.Module], spec: LanguageModel) -> nn.Module:
    """The same model, with the masks of our patterns in each of its layers."""
    for module, block in zip(attentions, spec.blocks, strict=True):
        assert isinstance(block.mixer, SparseAttention)

        def give(
            module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], mixer: SparseAttention = block.mixer
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            x = named.get("hidden_states", inputs[0] if inputs else None)
            assert isinstance(x, Tensor)
            return inputs, {**named, "attention_mask": masks(mixer, x.shape[1])}

        module.register_forward_pre_hook(give, with_kwargs=True)
    return theirs


@torch.no_grad()
def decoded(ours: LanguageModelLayer, theirs: nn.Module, mapped: Callable[[Weights], dict[str, Tensor]]) -> float:
    """Our decoding by chunks against their pass over everything."""
    theirs = theirs.to(torch.float64).eval()
    theirs.load_state_dict(mapped(dict(ours.named_parameters())), strict=False)
    tokens = tokens_for(ours.spec, batch=2, length=sum(CHUNKS))
    state, parts = ours.initial_state(2), []
    for chunk in tokens.split(CHUNKS, dim=1):
        out = ours(chunk, state=state)
        parts.append(out.logits)
        state = out.state
    return near(torch.cat(parts, 1), theirs(tokens).logits, VALUES, "decoding")


def gpt_neox(spec: LanguageModel) -> nn.Module:
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, SparseAttention)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=spec.vocab,
            hidden_size=spec.width,
            num_hidden_layers=len(spec.blocks),
            num_attention_heads=mixer.heads,
            intermediate_size=spec.blocks[0].mlp.hidden,  # type: ignore[union-attr]
            hidden_act="gelu_new",
            rotary_pct=1.0,
            use_parallel_residual=False,
            tie_word_embeddings=True,
            layer_norm_eps=1e-5,
            attn_implementation="eager",
        )
    )
    return masked(model, [layer.attention for layer in model.gpt_neox.layers], spec)


def to_gpt_neox(weights: Weights) -> dict[str, Tensor]:
    """GPT-NeoX joins q, k and v head by head."""
    names = {"gpt_neox.embed_in.weight": "embedding.weight"}
    for kind in ("weight", "bias"):
        names[f"gpt_neox.final_layer_norm.{kind}"] = f"norm.{kind}"
        for theirs, ours in (
            ("input_layernorm", "residual.mixer_norm"),
            ("post_attention_layernorm", "residual.mlp_norm"),
            ("attention.dense", "mixer.o"),
            ("mlp.dense_h_to_4h", "mlp.up"),
            ("mlp.dense_4h_to_h", "mlp.down"),
        ):
            names[f"gpt_neox.layers.*.{theirs}.{kind}"] = f"blocks.*.{ours}.{kind}"
    found = renamed(weights, names)
    for layer in {name.split(".")[1] for name in weights if name.startswith("blocks.")}:
        for kind in ("weight", "bias"):
            parts = [weights[f"blocks.{layer}.mixer.{each}.{kind}"].unflatten(0, (4, -1)) for each in "qkv"]
            joined = torch.stack(parts, 1).flatten(0, 2)
            found[f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}"] = joined
    return found


def of_gpt2(spec: LanguageModel) -> nn.Module:
    model = gpt.gpt2(spec)
    return masked(model, [block.attn for block in model.transformer.h], spec)


def to_gpt2(weights: Weights) -> dict[str, Tensor]:
    """The sum of both axes' vectors is GPT-2's table of positions."""
    block, place = (weights[f"embedding.positions.axis{axis}"] for axis in (0, 1))
    grid = (block.unsqueeze(1) + place).flatten(0, 1)
    return gpt.to_gpt2({**weights, "embedding.positions.weight": grid[:CONTEXT]})


def of_llama(spec: LanguageModel) -> nn.Module:
    first = spec.blocks[0].mixer
    assert isinstance(first, SparseAttention)
    plain = spec.blocks[0].replace(mixer=Attention(heads=first.heads, kv_heads=first.kv_heads, rope=first.rope))
    model = llama.theirs(spec.replace(blocks=(plain,) * len(spec.blocks)))
    return masked(model, [layer.self_attn for layer in model.model.layers], spec)


NEOX, GPT2, LLAMA = (gpt_neox, to_gpt_neox), (of_gpt2, to_gpt2), (of_llama, llama.mapped)
SAME_BLOCKS: dict[str, tuple[str, tuple[Any, Any], dict[str, Any]]] = {
    "longformer": ("transformers GPTNeoXForCausalLM, masks by hand", NEOX, {}),
    "longformer, a common prefix": (
        "transformers GPTNeoXForCausalLM, masks by hand",
        NEOX,
        {"prefix": 1, "dilated_heads": 1},
    ),
    "sparse_transformer": ("transformers GPT2LMHeadModel, masks by hand", GPT2, {}),
    "sparse_transformer, strided": ("transformers GPT2LMHeadModel, masks by hand", GPT2, {"pattern": "strided"}),
    "sparse_transformer, heads": ("transformers GPT2LMHeadModel, masks by hand", GPT2, {"combined": "heads"}),
    "sparse_transformer, layers": (
        "transformers GPT2LMHeadModel, masks by hand",
        GPT2,
        {"combined": "layers", "pattern": "strided"},
    ),
    "bigbird": ("transformers LlamaForCausalLM, masks by hand", LLAMA, {}),
    "bigbird, grouped": ("transformers LlamaForCausalLM, masks by hand", LLAMA, {"kv_heads": 2, "chosen": 2}),
}


@pytest.mark.parametrize("name", SAME_BLOCKS)
def test_values_gradients_and_decoding(name: str, proof: Proof) -> None:
    against, (build, mapped), settings = SAME_BLOCKS[name]
    recipe = name.split(",")[0]
    ours = model_of(recipe, dtype=torch.float64, heads=4, **settings)
    theirs = build(ours.spec)
    proof(recipe, against, **agree(ours, theirs, mapped), decoding=decoded(ours, theirs, mapped))


def test_windows_are_mistrals(proof: Proof) -> None:
    """Sliding windows of 7 keys in every layer of the baseline, its own cache included."""
    spec = spec_of("llama", kv_heads=2)
    block = spec.blocks[0]
    assert isinstance(block.mixer, Attention)
    spec = spec.replace(blocks=(block.replace(mixer=block.mixer.replace(window=7)),) * 2)
    ours = disturbed(wt.build(spec).to(torch.float64))
    theirs = MistralForCausalLM(
        MistralConfig(
            vocab_size=spec.vocab,
            hidden_size=spec.width,
            intermediate_size=block.mlp.hidden,  # type: ignore[union-attr]
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            sliding_window=7,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
    )
    found = {**agree(ours, theirs, llama.mapped), **decode_alike(ours, theirs, llama.mapped)}
    proof("sliding windows", "transformers MistralForCausalLM", **found)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("longformer", {"window": 40, "lowest": 40, "dilated_heads": 0}),
        ("sparse_transformer", {"stride": 40}),
        ("sparse_transformer", {"stride": 40, "pattern": "strided"}),
        ("bigbird", {"block": 40}),
        ("bigbird", {"block": 8, "window": 9, "kv_heads": 2}),
    ],
)
def test_a_pattern_without_holes_is_the_same_model_with_plain_attention(recipe: str, settings: dict[str, Any]) -> None:
    sparse = model_of(recipe, dtype=torch.float64, **settings)
    blocks = []
    for block in sparse.spec.blocks:
        assert isinstance(block.mixer, SparseAttention)
        own = {
            name: getattr(block.mixer, name) for name in ("heads", "head_width", "kv_heads", "rope", "scale", "bias")
        }
        blocks.append(block.replace(mixer=Attention(**own)))
    plain = wt.build(sparse.spec.replace(blocks=tuple(blocks))).to(torch.float64)
    plain.load_state_dict(sparse.state_dict())
    tokens = tokens_for(sparse.spec)
    torch.testing.assert_close(sparse(tokens).logits, plain(tokens).logits, rtol=0, atol=1e-12)


def test_longformers_windows_and_dilations_are_the_tables() -> None:
    """12 layers: no gaps in 0-5, then 1, 2, 3 gaps in two layers each, on 2 of 8 heads; 32 keys to 512."""
    spec = wt.recipes.get("longformer")(size="41m")
    mixers = [block.mixer for block in spec.blocks]
    dilations = [max(each.dilation for each in mixer.patterns) for mixer in mixers]  # type: ignore[attr-defined]
    assert dilations == [1] * 6 + [2, 2, 3, 3, 4, 4]
    assert [sum(each.dilation > 1 for each in mixers[11].patterns), len(mixers[11].patterns)] == [2, 8]  # type: ignore[attr-defined]
    windows = [mixer.patterns[0].window for mixer in mixers]  # type: ignore[attr-defined]
    assert windows == sorted(windows)
    assert (windows[0], windows[-1]) == (32, 512)
    large = wt.recipes.get("longformer")(size="102m").blocks
    dilations = [max(each.dilation for each in block.mixer.patterns) for block in large]  # type: ignore[attr-defined]
    assert dilations == [1] * 15 + [2] * 5 + [3] * 5 + [4] * 5
