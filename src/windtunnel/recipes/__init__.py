"""Recipes: one paper, one file. This table is read without importing torch; the recipes themselves load when used."""

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from windtunnel.errors import InputError

if TYPE_CHECKING:
    from windtunnel.recipes.sizing import Paper, Training
    from windtunnel.root import Model


@dataclass(frozen=True)
class Entry:
    """What there is to know about a recipe before building it."""

    name: str
    title: str
    paper: str
    parts: str
    sizes: tuple[str, ...]


_ENTRIES = (
    Entry(
        "gpt3",
        "GPT-3",
        "Brown et al. 2020, arXiv 2005.14165",
        "LayerNorm, learned positions, dense and banded attention in turn, GELU MLP, biases, tied embeddings",
        ("125m", "350m", "760m", "1.3b", "2.7b", "6.7b", "13b", "175b"),
    ),
    Entry(
        "llama",
        "Llama (the baseline)",
        "Touvron et al. 2023, arXiv 2302.13971",
        "RMSNorm, RoPE, multi-head or grouped-query attention, SwiGLU, no biases",
        ("7b", "13b", "33b", "65b", "llama2-70b", "llama3-8b", "llama3-70b"),
    ),
    Entry(
        "palm",
        "PaLM",
        "Chowdhery et al. 2022, arXiv 2204.02311",
        "parallel block with one norm, multi-query attention, RoPE, SwiGLU, tied embeddings, logits / sqrt(width)",
        ("8b", "62b", "540b"),
    ),
    Entry(
        "diff_transformer",
        "Differential Transformer",
        "Ye et al. 2024, arXiv 2410.05258",
        "differential attention (two maps, learned lambda, head norm), otherwise the baseline",
        ("830m", "1.4b", "2.8b", "3b", "6.8b", "13.1b", "diffllama"),
    ),
    Entry(
        "ngpt",
        "nGPT",
        "Loshchilov et al. 2024, arXiv 2410.01131",
        "every vector and matrix on the unit sphere, eigen learning rates, no norms, no warm-up, no weight decay",
        ("0.5b", "1b"),
    ),
    # GPT-Neo and GPT-J
    Entry(
        "gpt_neo",
        "GPT-Neo",
        "Black et al. 2021, zenodo 5297715",
        "global and local attention in turn, unscaled scores, learned or axial positions, GELU MLP, tied embeddings",
        ("125m", "350m", "1.3b", "2.7b"),
    ),
    Entry(
        "gpt_j",
        "GPT-J",
        "Wang and Komatsuzaki 2021, mesh-transformer-jax",
        "parallel block with one LayerNorm, RoPE on a quarter of each head (interleaved), GELU MLP, biased head",
        ("6b",),
    ),
    # positions
    Entry(
        "mpt_alibi",
        "MPT with ALiBi",
        "MosaicML 2023; Press et al. 2022, arXiv 2108.12409",
        "linear biases on the scores in place of positions, LayerNorm, GELU MLP, no biases, tied embeddings",
        ("7b", "30b"),
    ),
    Entry(
        "axial_text",
        "GPT with axial positions",
        "Kitaev et al. 2020, arXiv 2001.04451, section 2.4",
        "positions on a grid with a table for each axis, otherwise a dense GPT-3",
        (),
    ),
    # differential and normalised
    Entry(
        "diff_transformer_v2",
        "Differential Transformer V2",
        "Microsoft 2026, blog post of 20 January",
        "twice the query heads, subtracted in pairs by a gate of each token and head, otherwise the baseline",
        (),
    ),
    # recurrences
    Entry(
        "griffin",
        "Griffin",
        "De et al. 2024, arXiv 2402.19427",
        "two recurrent blocks (RG-LRU behind a convolution of 4) to one of local multi-query attention, gated GELU MLP",
        ("100m", "200m", "400m", "1.3b", "3b", "7b", "14b", "recurrentgemma-2b", "recurrentgemma-9b"),
    ),
    Entry(
        "hawk",
        "Hawk",
        "De et al. 2024, arXiv 2402.19427",
        "a recurrent block (RG-LRU behind a convolution of 4) in every layer, gated GELU MLP; no attention",
        ("100m", "200m", "400m", "1.3b", "3b", "7b", "14b"),
    ),
    Entry(
        "mqa_transformer",
        "MQA transformer",
        "De et al. 2024, arXiv 2402.19427",
        "Griffin's own baseline: multi-query attention over everything before, RoPE on half a head, gated GELU MLP",
        ("100m", "200m", "400m", "1.3b", "3b", "7b"),
    ),
    # state-space comparators
    Entry(
        "mamba",
        "Mamba",
        "Gu and Dao 2023, arXiv 2312.00752",
        "selective state spaces (S6), short convolution and gate, RMSNorm, no MLP, no positions, tied embeddings",
        ("130m", "370m", "790m", "1.4b", "2.8b"),
    ),
    Entry(
        "lru",
        "Linear Recurrent Unit",
        "Orvieto et al. 2023, arXiv 2303.06349",
        "complex diagonal recurrences, GELU and a gated linear unit, LayerNorm, no positions",
        ("text",),
    ),
    Entry(
        "h3",
        "H3",
        "Fu et al. 2022, arXiv 2212.14052",
        "shift and diagonal state spaces with products between them, GELU MLP, attention if asked, tied embeddings",
        ("125m", "355m", "1.3b", "2.7b"),
    ),
    # sparse attention
    Entry(
        "longformer",
        "Longformer",
        "Beltagy et al. 2020, arXiv 2004.05150",
        "sliding windows that grow with depth, dilated heads, global tokens, RoPE, LayerNorm, GELU MLP, biases",
        ("41m", "102m"),
    ),
    Entry(
        "sparse_transformer",
        "Sparse Transformer",
        "Child et al. 2019, arXiv 1904.10509",
        "fixed or strided patterns, merged or by turns of layers or heads, LayerNorm, axial positions, GELU MLP",
        ("enwik8", "imagenet64"),
    ),
    Entry(
        "bigbird",
        "BigBird",
        "Zaheer et al. 2020, arXiv 2007.14062",
        "blocks: global, neighbouring and random ones, in causal order, otherwise the baseline",
        (),
    ),
    Entry(
        "topk_attention",
        "Top-k attention",
        "Gupta et al. 2021, arXiv 2106.06899",
        "each query attends to the keys of its k largest scores, otherwise the baseline",
        (),
    ),
    # linear attention
    Entry(
        "efficient_attention",
        "Efficient (linear) attention",
        "Shen et al. 2018, arXiv 1812.01243",
        "causal linear attention with a state of fixed size (key softmax over the prefix), otherwise GPT-3's block",
        ("tiny",),
    ),
    # experts
    Entry(
        "sparsely_gated_moe",
        "Sparsely-gated mixture of experts",
        "Shazeer et al. 2017, arXiv 1701.06538",
        "noisy top-k gating of ReLU experts, importance and load losses, otherwise the baseline",
        ("tiny",),
    ),
    Entry(
        "switch",
        "Switch Transformer",
        "Fedus et al. 2021, arXiv 2101.03961",
        "one ReLU expert a token in every second block, capacity and jitter in training, smaller initial values",
        ("tiny",),
    ),
    Entry(
        "gshard",
        "GShard's experts (and GPT-Neo's)",
        "Lepikhin et al. 2020, arXiv 2006.16668",
        "two ReLU experts a token in every second block, capacity by groups in training, random second choice",
        ("tiny",),
    ),
    Entry(
        "mixtral",
        "Mixtral",
        "Jiang et al. 2024, arXiv 2401.04088",
        "dropless top-2 of 8 SwiGLU experts in every block, otherwise the baseline",
        ("8x7b", "8x22b", "tiny"),
    ),
    Entry(
        "gpt4_rumour",
        "GPT-4 as rumoured",
        "unconfirmed: SemiAnalysis, July 2023",
        "top-2 of 16 ungated experts, multi-query attention, tied embeddings; proportions of a rumour",
        ("1.8t", "8x220b"),
    ),
    Entry(
        "router_first",
        "Router before attention (an experiment)",
        "none: an open question",
        "dropless top-2 experts chosen from the block's input: early, late, parallel or by hash",
        ("tiny",),
    ),
    # axial
    Entry(
        "axial_image",
        "Axial Transformer",
        "Ho et al. 2019, arXiv 1912.12180",
        "a grid in raster order: unmasked rows and causal columns above, causal rows inside, shifts instead of masks",
        ("imagenet32",),
    ),
)
_TABLE = {entry.name: entry for entry in _ENTRIES}

Recipe = Callable[..., "Model"]


def names() -> list[str]:
    """All recipes, in the table's order."""
    return list(_TABLE)


def entry(name: str) -> Entry:
    """The table's row for a recipe; an `InputError` offers the nearest names."""
    from windtunnel.spec import nearest

    if name not in _TABLE:
        raise InputError(f"unknown recipe {name!r}{nearest(name, _TABLE)}")
    return _TABLE[name]


def get(name: str) -> Recipe:
    """The function of a recipe. `my_lab.idea:idea` names a function in a package of one's own."""
    if ":" in name:
        return _foreign(name)
    recipe: Recipe = getattr(importlib.import_module(f"windtunnel.recipes.{entry(name).name}"), name)
    return recipe


def build(name: str, /, **settings: Any) -> "Model":
    """The spec of a recipe with these settings; an `InputError` for a setting that a recipe of one's own lacks."""
    recipe = get(name)
    try:
        inspect.signature(recipe).bind(**settings)
    except TypeError as error:
        if ":" in name:  # ours say it better, with the nearest names
            raise InputError(f"recipe {name!r}: {error}") from error
    return recipe(**settings)


def training(name: str) -> "Training":
    """What a recipe declares about its own training (learning-rate grid, what belongs to its idea)."""
    from windtunnel.recipes.sizing import Training

    declared = getattr(_module(name), "TRAINING", None)
    return declared if isinstance(declared, Training) else Training()


def paper(name: str) -> "Paper | None":
    """How the recipe's paper trained, where the recipe says so."""
    from windtunnel.recipes.sizing import Paper

    declared = getattr(_module(name), "PAPER", None)
    return declared if isinstance(declared, Paper) else None


def _module(name: str) -> ModuleType:
    return importlib.import_module(name.split(":")[0] if ":" in name else f"windtunnel.recipes.{entry(name).name}")


def _foreign(name: str) -> Recipe:
    module_name, _, function = name.partition(":")
    try:
        found: Recipe = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"recipe {name!r}: {error}; expected package.module:function") from error
    return found


class _Recipes(ModuleType):
    """This package, in which `recipes.llama` is the recipe, not the file of that name, whoever imports the file."""

    def __setattr__(self, name: str, value: object) -> None:
        is_file = isinstance(value, ModuleType) and name in _TABLE
        super().__setattr__(name, getattr(value, name) if is_file else value)


sys.modules[__name__].__class__ = _Recipes


def __getattr__(name: str) -> Any:
    if name in _TABLE:
        return get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
