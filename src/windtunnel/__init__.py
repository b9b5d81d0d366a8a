"""Windtunnel: a wind tunnel for language-model architectures."""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["InputError", "WorkError", "__version__", "build", "from_json", "generate", "load", "recipes"]

from windtunnel import recipes
from windtunnel.errors import InputError, WorkError
from windtunnel.version import VERSION as __version__

if TYPE_CHECKING:
    from windtunnel.inference.generate import generate
    from windtunnel.root import Model, ModelLayer
    from windtunnel.runs import load
    from windtunnel.spec import from_json

_LAZY = {
    "from_json": "windtunnel.spec",
    "generate": "windtunnel.inference.generate",
    "load": "windtunnel.runs",
}


def build(spec: "Model", seed: int = 0) -> "ModelLayer":
    """The module of a spec with initial values drawn from (seed, parameter name)."""
    return spec.build().initialize(seed)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        importlib.import_module("windtunnel.parts")  # defines the kinds of part that a spec can hold
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
