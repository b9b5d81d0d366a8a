"""Optimisers by name. Each is one file with `build(groups, settings)`; adding one is that file and a line here."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from windtunnel.training.settings import TrainingSettings

OPTIMISERS: dict[str, str] = {"adamw": "windtunnel.training.optimisers.adamw"}


def build_optimiser(model: "nn.Module", settings: "TrainingSettings") -> "Optimizer":
    """The optimiser that the settings name, over the model's parameters grouped by role."""
    from windtunnel.training.optimisers.groups import parameter_groups

    optimiser: Optimizer = importlib.import_module(OPTIMISERS[settings.optimiser]).build(
        parameter_groups(model, settings.weight_decay), settings
    )
    return optimiser
