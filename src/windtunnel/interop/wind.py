"""Windtunnel's own folders: for models that no class of transformers computes. `interop.auto` loads them there."""

from collections.abc import Collection
from typing import Any

import torch

import windtunnel.parts  # noqa: F401 - defines the kinds that files may hold
from windtunnel.checkpoint import model_tensors
from windtunnel.errors import InputError
from windtunnel.interop.config import Config
from windtunnel.interop.family import Family
from windtunnel.interop.weights import Weight, weight
from windtunnel.model import LanguageModel
from windtunnel.spec import from_json

PREFIX = "model."


def _read(config: Config) -> LanguageModel:
    spec = from_json(config.any("spec"), path=f"{config.place}: spec")
    if not isinstance(spec, LanguageModel):
        raise config.refusal("spec", f"is a {spec.kind}, not a language model")
    for name, value in _shown(spec).items():
        config.only(name, value)
    return spec


def _write(spec: Any) -> dict[str, Any]:
    if not isinstance(spec, LanguageModel):
        raise InputError(f"{spec.kind} is not a language model of tokens")
    return {"spec": spec.to_json(), **_shown(spec)}


def _shown(spec: LanguageModel) -> dict[str, Any]:
    """What other programs ask of any model."""
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.blocks),
        "max_position_embeddings": spec.context,
        "tie_word_embeddings": spec.head.tied,
    }


def _steps(spec: LanguageModel, names: Collection[str]) -> list[Weight]:
    with torch.device("meta"):
        ours = model_tensors(spec.build())
    return [weight(f"{PREFIX}{name}", name) for name in ours]


WINDTUNNEL = Family(
    name="windtunnel", architecture="WindtunnelForCausalLM", read=_read, write=_write, steps=_steps, prefix=PREFIX
)
