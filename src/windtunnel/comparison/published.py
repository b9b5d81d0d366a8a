"""Arms that train as their paper did, beside the same arms under the common settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from windtunnel import recipes
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.given import is_run
from windtunnel.errors import InputError
from windtunnel.mup import MuP
from windtunnel.training.settings import TrainingSettings

RULES = ("common", "paper")
_SUFFIX = "-paper"


def with_papers(arms: Sequence[Arm], rules: str) -> list[Arm]:
    """The arms, and under the rules "paper" a twin of each whose recipe says how its paper trained.

    The twin has the same spec. Its learning rate is tuned like any other, around the paper's where that is given. What
    says nothing of its paper's training stays under the common settings alone, with a warning.
    """
    if rules not in RULES:
        raise InputError(f"settings: {rules!r} given; common or paper")
    if rules == "common":
        return list(arms)
    found: list[Arm] = []
    for arm in arms:
        settings = None if arm.control or arm.twin_of else _settings(arm.recipe)
        if settings is not None:
            found.append(Arm(**{**arm.__dict__, **_as_published(arm, settings)}))
    if not found:
        known = [name for name in recipes.names() if recipes.paper(name) is not None]
        raise InputError(
            f"settings: no arm's recipe says how its paper trained; {', '.join(known)} do; leave out --settings paper"
        )
    taken = {arm.label for arm in arms}
    for arm in found:
        if arm.label in taken:
            raise InputError(f"arm {arm.label!r}: the name is needed for an arm under its paper's settings")
    return [*arms, *found]


def published_values(arm: Arm) -> dict[str, Any]:
    """Fields of `TrainingSettings` that the arm's paper sets, but for the learning rate, which is tuned."""
    values = {name: _tuples(value) for name, value in arm.published.items()}
    values.pop("learning_rate", None)
    return values


def centre(arm: Arm) -> float:
    """Where the arm's grid of learning rates begins."""
    width = arm.spec.initial.base if isinstance(arm.spec.initial, MuP) else arm.spec.width
    return float(arm.published.get("learning_rate", arm.training.learning_rate_at(width)))


def shares_trunk(arm: Arm) -> bool:
    """Whether shorter horizons branch off the longest run; a cosine has no trunk, so that each is a run of its own."""
    return bool(arm.published.get("schedule", TrainingSettings.schedule) != "cosine")


def _settings(recipe: str) -> Mapping[str, Any] | None:
    paper = None if is_run(recipe) else recipes.paper(recipe)
    return None if paper is None else paper.settings


def _as_published(arm: Arm, settings: Mapping[str, Any]) -> dict[str, Any]:
    paper = recipes.paper(arm.recipe)
    assert paper is not None
    label = arm.label + _SUFFIX
    note = f"{label} trains as its paper did: {paper.why}"
    return {"label": label, "tuned_as": label, "published": dict(settings), "warnings": (*arm.warnings, note)}


def _tuples(value: Any) -> Any:
    """Lists, as JSON gives them, back to tuples."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value
