"""Every recipe at a size that runs in milliseconds, with its settings off their defaults too."""

from typing import Any

import torch

import windtunnel as wt
from windtunnel.model import LanguageModel, LanguageModelLayer
from windtunnel.selftest.tiny import CONTEXT, OWN, SIZES, VOCAB, disturbed, state_tensors, tokens_for

__all__ = [
    "CASES",
    "CONTEXT",
    "OWN",
    "SIZES",
    "VOCAB",
    "disturbed",
    "model_of",
    "spec_of",
    "state_tensors",
    "tokens_for",
]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in wt.recipes.names()},
    "gpt3-dense": ("gpt3", {"banded": False}),
    "gpt3-window-of-2": ("gpt3", {"window": 2}),
    "gpt3-sinusoidal": ("gpt3", {"positions": "sinusoidal"}),
    "gpt3-alibi": ("gpt3", {"positions": "alibi", "heads": 3, "width": 66}),
    "gpt3-rope": ("gpt3", {"positions": "rope"}),
    "gpt3-no-positions": ("gpt3", {"positions": "none"}),
    "gpt_neo-axial-pattern": ("gpt_neo", {"attention": "none,local,global", "axial": True, "rows": 32}),
    "gpt_neo-doubled": ("gpt_neo", {"attention": "global, none", "doubled": True, "heads": 2, "hidden": 50}),
    "gpt_neo-linear": ("gpt_neo", {"attention": "global,linear", "heads": 2}),
    "gpt_neo-experts": ("gpt_neo", {"experts": 4, "expert_hidden": 24, "every": 2}),
    "gpt_j-wide-rotary": ("gpt_j", {"heads": 2, "rotary_width": 32, "hidden": 50}),
    "mpt_alibi-grouped-window": ("mpt_alibi", {"heads": 6, "kv_heads": 3, "width": 48, "window": 9}),
    "mpt_alibi-no-positions": ("mpt_alibi", {"alibi": False}),
    "axial_text-sum": ("axial_text", {"combine": "sum", "rows": 3, "deviation": 0.5}),
    "axial_text-average": ("axial_text", {"combine": "average", "rows": 96}),
    "axial_text-widths": ("axial_text", {"row_width": 11}),
    "llama-grouped": ("llama", {"kv_heads": 2, "tied": True}),
    "llama-wide-heads": ("llama", {"heads": 3, "head_width": 10, "hidden": 37, "layers": 1}),
    "llama-convolution": ("llama", {"convolution": 4, "kv_heads": 2}),
    "llama-two-taps": ("llama", {"convolution": 2, "layers": 1}),
    "palm-serial-centred": ("palm", {"parallel": False, "centred": True, "head_width": 12}),
    "diff_transformer-grouped": ("diff_transformer", {"heads": 4, "kv_heads": 2, "gain": False, "tied": True}),
    "diff_transformer-constant": ("diff_transformer", {"lambda_init": 0.5, "theta": 640_000.0, "eps": 1e-5}),
    "diff_transformer_v2-grouped": (
        "diff_transformer_v2",
        {"heads": 4, "kv_heads": 2, "head_width": 10, "tied": True, "theta": 500.0},
    ),
    "ngpt-step-1": ("ngpt", {"steps": 1, "hidden": 100}),
    "ngpt-step-4": ("ngpt", {"steps": 4, "heads": 2}),
    "griffin-attention-first": (
        "griffin",
        {"pattern": "AR", "recurrent_width": 56, "gate_blocks": 4, "memory": "text", "scaled": True, "soft_cap": 3.0},
    ),
    "hawk-four-blocks": ("hawk", {"heads": 4, "recurrent_width": 36, "hidden": 50, "layers": 2}),
    "topk_attention-grouped": ("topk_attention", {"kv_heads": 1, "top": 3, "tied": True}),
    "longformer-global": ("longformer", {"prefix": 3, "dilated_heads": 3, "layers": 2}),
    "sparse_transformer-strided": ("sparse_transformer", {"pattern": "strided"}),
    "sparse_transformer-layers": ("sparse_transformer", {"pattern": "strided", "combined": "layers", "layers": 2}),
    "sparse_transformer-heads": ("sparse_transformer", {"combined": "heads", "columns": 2}),
    "bigbird-grouped": ("bigbird", {"kv_heads": 2, "block": 5, "window": 1, "chosen": 2, "tied": True}),
    "ngpt-odd-vocab": ("ngpt", {"vocab": 31, "hidden": 50}),
    "mamba-odd": ("mamba", {"hidden": 37, "state": 3, "taps": 1}),
    "lru-long-memory": ("lru", {"hidden": 37, "r_min": 0.9, "r_max": 0.999, "phase_max": 0.3}),
    "h3-heads": ("h3", {"heads": 16, "state": 6, "hidden": 50}),
    "h3-hybrid": ("h3", {"attention": 2, "attention_heads": 2, "state": 10}),
    "efficient_attention-without-positions": ("efficient_attention", {"positions": False}),
    "efficient_attention-scaling": ("efficient_attention", {"normalisation": "scaling", "positions": False}),
    "efficient_attention-elu": ("efficient_attention", {"normalisation": "kernel", "features": "elu", "heads": 2}),
    "axial_image-part-of-a-row": ("axial_image", {"rows": 14, "columns": 7, "nearly_nothing": False, "layers": 4}),
    "axial_image-without-upper": ("axial_image", {"outer": 0, "positions": False, "rows": 12, "columns": 9}),
    "efficient_attention-hybrid": ("efficient_attention", {"normalisation": "kernel", "hybrid": True}),
    "sparsely_gated_moe-all-chosen": ("sparsely_gated_moe", {"experts": 3, "choices": 3, "hidden": 21}),
    "switch-every-block": ("switch", {"every": 1, "experts": 5, "hidden": 33, "capacity": 0.5}),
    "gshard-mesh": ("gshard", {"every": 1, "mesh": True, "second": "all", "group": 60, "experts": 4}),
    "gshard-first-alone": ("gshard", {"second": "none", "experts": 3}),
    "mixtral-loss-free": ("mixtral", {"experts": 5, "choices": 3, "balance": 0, "loss_free": True, "kv_heads": 2}),
    "mixtral-one-choice": ("mixtral", {"choices": 1, "z_loss": 1e-3, "hidden": 19}),
    "router_first-own-norm": ("router_first", {"route": "early-own-norm"}),
    "router_first-parallel": ("router_first", {"route": "parallel", "experts": 4}),
    "router_first-hash": ("router_first", {"route": "hash", "choices": 3}),
}


def spec_of(case: str, **settings: Any) -> LanguageModel:
    """The spec of a case."""
    recipe, own = CASES[case]
    return wt.recipes.get(recipe)(**{**SIZES, **OWN.get(recipe, {}), **own, **settings})


def model_of(case: str, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> LanguageModelLayer:
    """Its module, initialised, with biases and gains moved off their special values so that each is felt."""
    return disturbed(wt.build(spec_of(case, **settings), seed).to(dtype), seed)
