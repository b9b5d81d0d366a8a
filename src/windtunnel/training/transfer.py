"""A recipe under muP: the same settings at a base width say how it is carried to its own."""

from collections.abc import Mapping
from typing import Any

from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.mup import MuP, in_mup
from windtunnel.root import Model
from windtunnel.training.optimisers import OPTIMISERS
from windtunnel.training.settings import TrainingSettings

_WITH_THE_WIDTH = ("hidden", "recurrent_width")  # settings that a recipe takes as numbers and that grow with its width


def at_width(recipe: str, settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """A recipe's settings for another width; inner widths that were given keep their ratio to it, in steps of 8."""
    own = recipes.build(recipe, **settings).width
    scaled = {
        name: max(8, round(settings[name] * width / own / 8) * 8) for name in _WITH_THE_WIDTH if settings.get(name)
    }
    return {**settings, **scaled, "width": width}


def under_mup(recipe: str, settings: Mapping[str, Any], base: int) -> Model:
    """The recipe's model under muP from the width `base`, where it is the recipe's as it stands."""
    if base < 1:
        raise InputError(f"mup: the base width must be at least 1, got {base}")
    return in_mup(recipes.build(recipe, **settings), recipes.build(recipe, **at_width(recipe, settings, base)))


def check_mup(spec: Model, settings: TrainingSettings) -> None:
    """Refuse an optimiser that muP's table says nothing of."""
    if not isinstance(spec.initial, MuP):
        return
    known = ", ".join(name for name, choice in OPTIMISERS.items() if choice.family is not None)
    if OPTIMISERS[settings.optimiser].family is None:
        raise InputError(f"mup: its published table has no rates for {settings.optimiser!r}; take one of {known}")
    if settings.optimiser == "adam" and settings.weight_decay:
        raise InputError(
            f"mup: weight_decay is {settings.weight_decay:g}, which adam adds to gradients that shrink with the width; "
            "take adamw, or a decay of 0"
        )
