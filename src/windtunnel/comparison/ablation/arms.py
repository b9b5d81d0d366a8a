"""The arms of an ablation: models between a baseline and a recipe, matched in parameters like any other arm."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from windtunnel import recipes
from windtunnel.comparison.ablation.parts import TRAINING, Part, between, differing, trained_with
from windtunnel.comparison.ablation.steps import Mode, Step, conversion, removals
from windtunnel.comparison.arms import Arm, shape_of
from windtunnel.comparison.matching import REFUSE, Match, match
from windtunnel.comparison.presets import Preset
from windtunnel.errors import InputError
from windtunnel.init import generator
from windtunnel.ledger import n_body_active
from windtunnel.root import Model

_KNOBS = ("hidden", "width", "width and hidden")
_TURNED = ("hidden", "width")  # heads follow from the width
_AS_IT_IS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Ablation:
    """What to take apart: the recipe, what it is held against, and how."""

    recipe: str
    against: str = "llama"
    mode: Mode = "remove"


def title_of(record: Mapping[str, Any]) -> str:
    """What a study of an ablation is called."""
    recipe, against = record["recipe"], record["against"]
    return f"{against} to {recipe}, step by step" if record["mode"] == "path" else f"{recipe} without each of its parts"


@dataclass(frozen=True)
class Pair:
    """The two recipes at one size."""

    ablation: Ablation
    sizes: Mapping[str, Any]

    @property
    def trained(self) -> tuple[Any, Any]:
        """What both declare about their training."""
        return recipes.training(self.ablation.against), recipes.training(self.ablation.recipe)

    def spec(self, parts: Collection[Part], turned: Mapping[str, int] = _AS_IT_IS) -> Model:
        """The model with these parts, at other sizes if some are turned."""
        return between(*self._both(turned), parts)

    def parts(self) -> tuple[list[Part], list[Part]]:
        """The differences that are felt at this size, and those that are not."""
        found = differing(*self._both(_AS_IT_IS), self.trained)
        felt = [part for part in found if part.name == TRAINING or self._felt(found, part)]
        return felt, [part for part in found if part not in felt]

    def impossible(self, parts: Collection[Part]) -> str:
        """Why a model with these parts cannot be built; empty where it can."""
        try:
            with torch.device("meta"):
                self.spec(parts).build()
        except InputError as error:
            return str(error)
        return ""

    def _felt(self, parts: Sequence[Part], part: Part) -> bool:
        """Whether the recipe without a part computes anything else; without a window beyond the text it does not.

        On the way from the baseline it may be the baseline that feels it.
        """
        rest = [each for each in parts if each is not part]
        ends = [(parts, rest)] if self.ablation.mode == "remove" else [(parts, rest), ((part,), ())]
        return any(
            bool(self.impossible(one) or self.impossible(other))
            or _some_loss(self.spec(one)) != _some_loss(self.spec(other))
            for one, other in ends
        )

    def _both(self, turned: Mapping[str, int]) -> tuple[Model, Model]:
        found = [self._built(name, turned) for name in (self.ablation.against, self.ablation.recipe)]
        return found[0], found[1]

    def _built(self, name: str, turned: Mapping[str, int]) -> Model:
        known = inspect.signature(recipes.get(name)).parameters
        spec = recipes.build(name, **{**self.sizes, **{key: value for key, value in turned.items() if key in known}})
        if not isinstance(spec, Model):
            raise InputError(f"recipe {name!r} gives a {type(spec).__name__}; expected a Model")
        return spec


@torch.no_grad()
def _some_loss(spec: Model) -> float:
    """A training step's loss on random tokens, with weights a little off where they start: biases are not 0."""
    model = spec.build().initialize(0)
    for name, parameter in model.named_parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator(1, name)))
    tokens = torch.randint(spec.vocab, (1, spec.context + 1), generator=generator(2, "tokens"))
    return float(model.loss(tokens[:, :-1], tokens[:, 1:], seed=0).total)


def ablation_arms(
    ablation: Ablation, design: Preset, vocab: int, overrides: Mapping[str, Any], *, lattice: int, allow_gap: bool
) -> tuple[list[Arm], str, dict[str, Any]]:
    """The arms, the label of the one that the others are compared with, and what `study.json` says of the ablation.

    All have the active body parameters of the recipe that is held against. Parts are removed from the whole recipe,
    which is the baseline then; a conversion begins with the one held against.
    """
    sizes = {"layers": design.layers, "width": design.width, "context": design.context, "vocab": vocab, **overrides}
    pair = Pair(ablation, sizes)
    parts, unfelt = pair.parts()
    if len(parts) < 2:
        raise InputError(
            f"ablate: at this size {ablation.recipe} differs from {ablation.against} in "
            f"{', '.join(part.name for part in parts) or 'nothing'} alone; an ablation needs two parts, and "
            "`windtunnel compare` tells what one is worth"
        )
    remarks: list[str] = []
    if ablation.mode == "path":
        steps, baseline = conversion(parts, pair.impossible), ablation.against
        ordered = [Step(ablation.against, (), ()), *steps[:-1], _with(steps[-1], unfelt)]
    else:
        (steps, remarks), baseline = removals(parts, lambda some: pair.impossible((*some, *unfelt))), ablation.recipe
        whole = Step(ablation.recipe, (), tuple(parts))
        ordered = [*(_with(step, unfelt) for step in (whole, *steps)), Step(ablation.against, tuple(parts), ())]
    target = n_body_active(pair.spec(()))
    arms = [_arm(pair, step, parts, target, lattice, allow_gap) for step in ordered]
    remarks += [f"{part.words} makes no difference at this size and is no step" for part in unfelt]
    return arms, baseline, _record(ablation, parts, steps, remarks)


def _with(step: Step, unfelt: Sequence[Part]) -> Step:
    """The step's model with what nobody feels too, so that all parts are the recipe to the letter."""
    return replace(step, taken=(*step.taken, *unfelt))


def _arm(pair: Pair, step: Step, parts: Sequence[Part], target: int, lattice: int, allow_gap: bool) -> Arm:
    spec = pair.spec(step.taken)
    start = shape_of(spec)

    def turned(settings: Mapping[str, int]) -> dict[str, int]:
        before = start.settings()
        return {name: settings[name] for name in _TURNED if settings[name] != before[name]}

    def count(settings: dict[str, int]) -> int:
        return n_body_active(pair.spec(step.taken, turned(settings)))

    found = _matched(pair, step, count, start, target, lattice, allow_gap)
    changed = turned(found.settings)
    taken = [part for part in step.taken if part in parts]
    return Arm(
        label=step.label,
        recipe=pair.ablation.recipe if step.taken else pair.ablation.against,
        spec=pair.spec(step.taken, changed),
        training=trained_with(pair.trained, taken, len(parts)),
        matching=found,
        settings={**pair.sizes, **changed, "parts": [part.name for part in taken]},
        tuned_as=step.label,
        warnings=tuple(f"{step.label}: {words}" for words in (step.note, found.warning) if words),
    )


def _matched(pair: Pair, step: Step, count: Any, start: Any, target: int, lattice: int, allow_gap: bool) -> Match:
    """A feed-forward width that the user chose is not turned."""
    if pair.sizes.get("hidden") is None:
        return match(count, start, target, lattice=lattice, allow_gap=allow_gap, knobs=_KNOBS)
    own = count(start.settings())
    gap = own / target - 1
    if abs(gap) > REFUSE and not allow_gap:
        raise InputError(
            f"arm {step.label!r}: its sizes give {own:,} active body parameters, {100 * gap:+.1f} % from "
            f"{pair.ablation.against}'s {target:,}; leave hidden to the matching, or pass --allow-param-gap"
        )
    return Match(start.settings(), own, gap, "given", 0)


def _record(ablation: Ablation, parts: list[Part], steps: list[Step], remarks: list[str]) -> dict[str, Any]:
    return {
        "recipe": ablation.recipe,
        "against": ablation.against,
        "mode": ablation.mode,
        "parts": [
            {"name": part.name, "paths": list(part.paths), "before": part.before, "after": part.after} for part in parts
        ],
        "steps": [
            {"label": step.label, "parts": [part.name for part in step.parts], "note": step.note} for step in steps
        ],
        "remarks": remarks,
    }
