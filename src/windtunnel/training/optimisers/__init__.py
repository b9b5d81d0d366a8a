"""Optimisers by name. Each is one file with `build(model, settings)`; adding one is that file and an entry here."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from windtunnel.mup import Family
    from windtunnel.training.settings import TrainingSettings


@dataclass(frozen=True)
class Choice:
    """An optimiser's module, and why it does not read a setting: "eps", or "betas" for the second of them.

    matrices: whether an update needs the whole of a matrix, so that no process can make its part of it alone.
    family: the column of muP's table that its rates follow; None: muP is refused.
    """

    module: str
    unread: Mapping[str, str] = field(default_factory=dict)
    matrices: bool = False
    family: "Family | None" = None


_HERE = "windtunnel.training.optimisers"
OPTIMISERS: dict[str, Choice] = {
    "adamw": Choice(f"{_HERE}.adamw", family="adam"),
    "adam": Choice(f"{_HERE}.adam", family="adam"),
    "sgd": Choice(f"{_HERE}.sgd", {"eps": "divides by nothing", "betas": "has momentum alone"}, family="sgd"),
    "adafactor": Choice(
        f"{_HERE}.adafactor", {"eps": "has PaLM's 1e-30 within the root", "betas": "has PaLM's 1 - k^-0.8"}
    ),
    "muon": Choice(f"{_HERE}.muon", matrices=True),
}


def build_optimisers(model: "nn.Module", settings: "TrainingSettings") -> "list[Optimizer]":
    """What the settings name; each of the model's parameters belongs to one of them."""
    optimisers: list[Optimizer] = importlib.import_module(OPTIMISERS[settings.optimiser].module).build(model, settings)
    return optimisers
