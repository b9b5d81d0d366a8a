"""Arms: what is compared. `[label=]recipe[:setting=value,...]`, built at the study's size and matched in parameters.

A run's folder in place of the recipe is its architecture, at its own sizes.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from windtunnel import recipes
from windtunnel.comparison.given import is_run, spec_of_run, training_of
from windtunnel.comparison.matching import Match, Shape, match, match_by_width
from windtunnel.comparison.presets import Preset
from windtunnel.comparison.state_matching import match_state
from windtunnel.errors import InputError
from windtunnel.ledger import n_body_active
from windtunnel.mlps import MLP
from windtunnel.recipes.sizing import Training
from windtunnel.root import Model
from windtunnel.runs import find
from windtunnel.spec import Spec, fields
from windtunnel.values import parse_setting

# Settings of an arm that concern the run, not the architecture: they make the controls of the tool itself.
CONTROLS = {"lr_factor": 1.0, "token_factor": 1.0, "seed_offset": 0}


@dataclass(frozen=True)
class ArmRequest:
    """An arm as the user wrote it."""

    label: str
    recipe: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """An arm ready to train.

    lr_factor multiplies the tuned learning rate, token_factor the tokens, seed_offset is added to the seeds: 1, 1, 0
    except in control arms, which share the trials of the arm `tuned_as`. A twin is the variant `twin_of` again,
    matched by its width instead of its feed-forward width. published: the paper's training settings, where the arm has
    them instead of the study's.
    """

    label: str
    recipe: str
    spec: Model
    training: Training
    matching: Match
    settings: dict[str, Any]
    lr_factor: float = 1.0
    token_factor: float = 1.0
    seed_offset: int = 0
    tuned_as: str = ""
    twin_of: str = ""
    published: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = field(default=())

    @property
    def control(self) -> bool:
        """Whether the arm departs from the study's own rules on purpose."""
        return (self.lr_factor, self.token_factor, self.seed_offset) != (1.0, 1.0, 0)

    @property
    def packages(self) -> list[str]:
        """The package of a recipe of one's own, whose kinds may be loaded because the user named it."""
        return [self.recipe.split(".")[0].split(":")[0]] if ":" in self.recipe else []


def parse_arm(text: str) -> ArmRequest:
    """Read `[label=]recipe[:setting=value,...]`; the label defaults to the recipe's name, or the folder's."""
    head, _, tail = text.partition(":")
    label, _, recipe = head.rpartition("=")
    given = is_run(recipe)
    if tail and recipe not in recipes.names() and not given:  # package.module:function[:setting=value]
        function, _, tail = tail.partition(":")
        recipe = f"{recipe}:{function}"
    settings = dict(parse_setting(part) for part in tail.split(",")) if tail else {}
    if ":" not in recipe and not given:
        recipes.entry(recipe)
    odd = [name for name in settings if name not in CONTROLS]
    if given and odd:
        raise InputError(f"arm {text!r}: {odd[0]} is set, and {recipe} is a run at its own sizes; leave it out")
    label = label or (Path(recipe).name if given else recipe.split(":")[-1])
    if not label or any(mark in label for mark in "/\\ \t\n") or label.startswith("."):
        raise InputError(f"arm {text!r}: label {label!r} names a folder; leave out spaces, slashes and a leading dot")
    return ArmRequest(label, recipe, settings)


def build_arms(
    texts: Sequence[str],
    baseline: str | None,
    preset: Preset,
    vocab: int,
    overrides: Mapping[str, Any],
    *,
    lattice: int,
    allow_gap: bool,
    state: int | str | None = None,
) -> tuple[list[Arm], str]:
    """All arms, variants matched to the baseline's active body parameters, and the baseline's label.

    state: match the bytes of the decoding state at the context instead, to so many or to the baseline's ("baseline").

    The baseline is the arm of that label, else `llama` if present, else the first.
    """
    requests = [parse_arm(text) for text in texts]
    labels = [request.label for request in requests]
    chosen = _baseline(requests, baseline).label
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"arm {label!r} is there {labels.count(label)} times; give each a label: other={label}")
    if len(labels) < 2:
        raise InputError(f"arms: {len(labels)} given; a comparison needs a baseline and at least one variant")
    sizes = {"layers": preset.layers, "width": preset.width, "context": preset.context, "vocab": vocab, **overrides}
    first = next(request for request in requests if request.label == chosen)
    if any(name in first.settings for name in CONTROLS):
        raise InputError(f"arm {chosen!r}: {', '.join(CONTROLS)} are for controls; the baseline follows the rules")
    reference = _unmatched(first, sizes)
    if state is not None:
        return _at_one_state(requests, sizes, reference, state, lattice, allow_gap), chosen
    arms = {chosen: reference}
    for request in requests:
        if request.label != chosen:
            arms[request.label] = _matched(request, sizes, reference, lattice, allow_gap)
    twins = [_twin(request, sizes, arms, reference, lattice) for request in requests] if preset.second_knob else []
    built = [arms[label] for label in labels] + [twin for twin in twins if twin is not None]
    return [_with_tuning(arm, arms) for arm in built], chosen


def sizes_given(texts: Sequence[str], baseline: str | None) -> dict[str, int]:
    """Layers and width of a baseline that is a run, which the study then has; nothing where it is a recipe."""
    first = _baseline([parse_arm(text) for text in texts], baseline)
    if not is_run(first.recipe):
        return {}
    spec = find(first.recipe).spec
    return {"layers": spec.depth, "width": spec.width}


def _baseline(requests: Sequence[ArmRequest], label: str | None) -> ArmRequest:
    by_label = {request.label: request for request in requests}
    chosen = label or ("llama" if "llama" in by_label else next(iter(by_label), ""))
    if chosen not in by_label:
        raise InputError(f"baseline: {chosen!r} is not among the arms {', '.join(by_label)}")
    return by_label[chosen]


def unmatched_spec(text: str, sizes: Mapping[str, Any]) -> Model:
    """What an arm is at these sizes, matched to nothing."""
    return _unmatched(parse_arm(text), sizes).spec


def with_size(
    text: str, sizes: Mapping[str, Any], target: int, count: Callable[[Model], int], *, lattice: int
) -> Match:
    """An arm at these layers and this width, its feed-forward width turned until `count` is nearest to the target."""
    arm = _unmatched(parse_arm(text), sizes)
    counter = _counter(arm.recipe, arm.settings, count)
    return match(counter, shape_of(arm.spec), target, lattice=lattice, allow_gap=True, knobs=("hidden",))


def pattern_period(text: str, sizes: Mapping[str, Any]) -> int:
    """Layers of one whole pattern of an arm; 1 where all are alike or no two are."""
    return shape_of(unmatched_spec(text, sizes)).period


def state_of(arms: Sequence[Arm], baseline: str, length: int) -> int:
    """Bytes of the baseline's decoding state after so many tokens."""
    return _state(next(arm for arm in arms if arm.label == baseline).spec, length)


def _at_one_state(
    requests: Sequence[ArmRequest],
    sizes: Mapping[str, Any],
    reference: Arm,
    state: int | str,
    lattice: int,
    allow_gap: bool,
) -> list[Arm]:
    """Every arm at the width whose decoding state has the wanted bytes; parameters are what they come to."""
    length = int(sizes["context"])
    if isinstance(state, str) and state != "baseline":
        raise InputError(f"state: {state!r} given; a number of bytes, or baseline")
    target = _state(reference.spec, length) if isinstance(state, str) else state
    arms: dict[str, Arm] = {}
    for request in requests:
        if is_run(request.recipe):
            raise InputError(
                f"arm {request.label!r}: is a run at its own sizes, and --state turns sizes; name a recipe"
            )
        arm = _unmatched(request, sizes)
        found = match_state(
            _counter(request.recipe, arm.settings, lambda spec: _state(spec, length)),
            _counter(request.recipe, arm.settings),
            shape_of(arm.spec),
            target,
            n_body_active(reference.spec),
            lattice=lattice,
            allow_gap=allow_gap,
        )
        settings = {**arm.settings, **_turned(found, arm)}
        warnings = (f"{request.label}: {found.warning}",) if found.warning else ()
        spec = _spec(request, settings)
        arms[request.label] = _replace(arm, spec=spec, matching=found, settings=settings, warnings=warnings)
    return [_with_tuning(arm, arms) for arm in arms.values()]


def _state(spec: Model, length: int) -> int:
    with torch.device("meta"):
        return int(spec.build().state_bytes(length))


def _unmatched(request: ArmRequest, sizes: Mapping[str, Any]) -> Arm:
    architecture, controls = _split(request)
    settings = {**sizes, **architecture}
    spec = _spec(request, settings)
    own = Match(shape_of(spec).settings(), n_body_active(spec), 0.0, "none", 0)
    return Arm(request.label, request.recipe, spec, training_of(request.recipe), own, settings, **controls)


def _matched(request: ArmRequest, sizes: Mapping[str, Any], reference: Arm, lattice: int, allow_gap: bool) -> Arm:
    arm = _unmatched(request, sizes)
    target = n_body_active(reference.spec)
    if is_run(request.recipe) or {"hidden", "width", "layers"} & {
        *request.settings
    }:  # sizes that the user chose are not turned
        gap = n_body_active(arm.spec) / target - 1
        own = Match(shape_of(arm.spec).settings(), n_body_active(arm.spec), gap, "given", 0)
        if abs(gap) > 0.02 and not allow_gap:
            raise InputError(
                f"arm {arm.label!r}: its sizes give {own.n_body:,} active body parameters, {100 * gap:+.1f} % from "
                f"the baseline's {target:,}; leave hidden, width and layers to the matching, or pass --allow-param-gap"
            )
        return _replace(arm, matching=own)
    found = match(
        _counter(request.recipe, arm.settings), shape_of(arm.spec), target, lattice=lattice, allow_gap=allow_gap
    )
    settings = arm.settings if found.knob == "none" else {**arm.settings, **_turned(found, arm)}
    warnings = (found.warning,) if found.warning else ()
    return _replace(arm, spec=_spec(request, settings), matching=found, settings=settings, warnings=warnings)


def _twin(
    request: ArmRequest, sizes: Mapping[str, Any], arms: Mapping[str, Arm], reference: Arm, lattice: int
) -> Arm | None:
    """The same variant matched by its width; None where its feed-forward width was not turned in the first place."""
    if arms[request.label].matching.knob != "hidden" or arms[request.label].control:
        return None
    arm = _unmatched(request, sizes)
    count, target = _counter(request.recipe, arm.settings), n_body_active(reference.spec)
    found = match_by_width(count, shape_of(arm.spec), target, lattice=lattice)
    settings = {**arm.settings, **_turned(found, arm)}
    label = f"{request.label}-by-width"
    return _replace(
        arm, label=label, spec=_spec(request, settings), matching=found, settings=settings, twin_of=request.label
    )


def _turned(found: Match, arm: Arm) -> dict[str, int]:
    """The settings that the match changed; heads only with the width, since recipes count heads in their own way."""
    return _changes(arm.recipe, shape_of(arm.spec).settings(), found.settings)


def _changes(recipe: str, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What differs, but for heads where the recipe has none."""
    headless = "heads" not in inspect.signature(recipes.get(recipe)).parameters
    return {
        name: value for name, value in after.items() if value != before[name] and not (headless and name == "heads")
    }


def _counter(recipe: str, settings: Mapping[str, Any], of: Callable[[Model], int] = n_body_active) -> Any:
    before = shape_of(recipes.build(recipe, **settings)).settings()

    def count(sizes: dict[str, int]) -> int:
        return of(recipes.build(recipe, **{**settings, **_changes(recipe, before, sizes)}))

    return count


def shape_of(spec: Model) -> Shape:
    """The sizes to turn: the first number of heads and the first feed-forward width found, and the pattern's period."""
    layers = spec.layers
    period = next((p for p in range(1, len(layers)) if layers[p:] == layers[:-p]), 1)
    heads, hidden = _first(layers, "heads"), _first(layers, "hidden")
    heads = heads or max(1, spec.width // 8)  # without heads the width moves by 8
    active = next((part.active for part in _parts(layers) if isinstance(part, MLP)), 1)
    return Shape(width=spec.width, layers=len(layers), heads=heads, hidden=hidden or 0, period=period, active=active)


def _parts(specs: Iterable[Any]) -> Iterator[Spec]:
    """Every part of a tree of parts, from above."""
    for spec in specs:
        if isinstance(spec, Spec):
            yield spec
            yield from _parts(value for _, value in fields(spec))


def _first(specs: Iterable[Any], name: str) -> int | None:
    """The first field of that name in a tree of parts."""
    for spec in specs:
        values = dict(fields(spec)) if isinstance(spec, Spec) else {}
        found = values.get(name) or _first(values.values(), name)
        if found:
            return int(found)
    return None


def _spec(request: ArmRequest, settings: Mapping[str, Any]) -> Model:
    if is_run(request.recipe):
        return spec_of_run(request.recipe, settings["vocab"], settings["context"])
    spec = recipes.build(request.recipe, **settings)
    if not isinstance(spec, Model):
        raise InputError(f"recipe {request.recipe!r} gives a {type(spec).__name__}; expected a Model")
    return spec


def _split(request: ArmRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    architecture = {name: value for name, value in request.settings.items() if name not in CONTROLS}
    controls = {name: type(CONTROLS[name])(value) for name, value in request.settings.items() if name in CONTROLS}
    return architecture, controls


def _with_tuning(arm: Arm, arms: Mapping[str, Arm]) -> Arm:
    """A control arm uses the trials of the ordinary arm with the same spec; any other its own."""
    if not arm.control:
        return _replace(arm, tuned_as=arm.label)
    for other in arms.values():
        if not other.control and other.spec == arm.spec:
            return _replace(arm, tuned_as=other.label)
    raise InputError(f"arm {arm.label!r} is a control and needs an ordinary arm of the same architecture beside it")


def _replace(arm: Arm, **changes: Any) -> Arm:
    return Arm(**{**arm.__dict__, **changes})
