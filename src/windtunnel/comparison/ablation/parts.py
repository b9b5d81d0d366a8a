"""The parts in which a recipe differs from its baseline, read off the two specs, and models that have some of them.

Two trees of specs are walked side by side. Every field that both have and that differs is a difference: heads, a bias,
rotary positions. Where a part is of another kind, the kind is one too, with all that only it has. Blocks that differ in
the same way are one path, `blocks.*`.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from windtunnel.errors import InputError
from windtunnel.recipes.sizing import Training
from windtunnel.root import Model
from windtunnel.spec import Spec, fields

TRAINING = "training"
_TURNED = "hidden"  # the matching turns it in every arm, so that it is no part
_WHOLE = "initial"  # initial values of another kind are taken as one
_GUARD = "eps"  # of a norm, which comes with its kind


@dataclass(frozen=True)
class Part:
    """One named difference. paths: where it is in the spec; before, after: what stands there, as JSON."""

    name: str
    paths: tuple[str, ...]
    before: Any
    after: Any

    @property
    def words(self) -> str:
        """`residual: PreNorm to Parallel`, `head.tied: no to yes`."""
        return f"{self.name}: {spelled(self.before)} to {spelled(self.after)}"


@dataclass
class _Walk:
    """A walk over two trees: `taken` paths are the variant's, all others the baseline's; what differs is noted."""

    taken: Collection[str]
    found: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def meet(self, left: Any, right: Any, path: str) -> Any:
        """The part between two."""
        if left == right:
            return left
        if path == "blocks" and len(left) == len(right):
            return tuple(self.meet(one, other, "blocks.*") for one, other in zip(left, right, strict=True))
        if not isinstance(left, Spec) or not isinstance(right, Spec):
            return self._choose(left, right, path)
        if left.kind == right.kind:
            return left.replace(**{name: self.meet(*pair, _join(path, name)) for name, pair in _pairs(left, right)})
        side = self._choose(left, right, path)
        if path == _WHOLE:
            return side
        shared = {name: pair for name, pair in _pairs(left, right) if name != _GUARD}
        return side.replace(**{name: self.meet(*pair, _join(path, name)) for name, pair in shared.items()})

    def _choose(self, left: Any, right: Any, path: str) -> Any:
        if path.split(".")[-1] == _TURNED:
            return left
        self.found.setdefault(path, (left, right))
        return right if path in self.taken else left


def differing(baseline: Model, variant: Model, trained: tuple[Training, Training]) -> list[Part]:
    """Every difference, in the spec's order, that of the training last.

    The same change of one part in several places is one. Raises `InputError` where the two are not trees of one root.
    """
    if baseline.kind != variant.kind or len(baseline.layers) != len(variant.layers):
        raise InputError(
            f"ablate: a {variant.kind} of {len(variant.layers)} layers and a {baseline.kind} of {len(baseline.layers)} "
            "have no places in common; name another --against, or --set layers"
        )
    walk = _Walk(())
    walk.meet(baseline, variant, "")
    groups: dict[str, list[str]] = {}
    for path, (before, after) in walk.found.items():
        of_parts = isinstance(before, Spec) and isinstance(after, Spec) and path != _WHOLE
        change = json.dumps([before.to_json(), after.to_json()]) if of_parts else path
        groups.setdefault(change, []).append(path)
    found = [
        Part(_named(paths), tuple(paths), *(_plain(each) for each in walk.found[paths[0]])) for paths in groups.values()
    ]
    before, after = ({"decay": one.weight_decay, "warm-up": one.warmup} for one in trained)
    return [*found, Part(TRAINING, (TRAINING,), before, after)] if before != after else found


def between(baseline: Model, variant: Model, parts: Collection[Part]) -> Model:
    """The baseline with these parts of the variant. Raises `InputError` where such a model cannot be."""
    model = _Walk({path for part in parts for path in part.paths}).meet(baseline, variant, "")
    assert isinstance(model, Model)
    return model


def trained_with(trained: tuple[Training, Training], parts: Collection[Part], total: int) -> Training:
    """How a model between is trained: its rates begin as far between the two centres as it has parts of all."""
    base, own = trained
    share = len(parts) / total
    rate = base.learning_rate ** (1 - share) * own.learning_rate**share
    side = own if any(part.name == TRAINING for part in parts) else base
    return Training(rate, side.weight_decay, side.warmup, side.why)


def spelled(value: Any) -> str:
    """A value of a spec in a few words: a part by its kind."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name} {spelled(item)}" for name, item in value.items() if name != "kind")
        return str(value.get("kind", inner))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(spelled(item) for item in value)
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _pairs(left: Spec, right: Spec) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Fields that both have."""
    theirs = dict(fields(right))
    return ((name, (value, theirs[name])) for name, value in fields(left) if name in theirs)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".lstrip(".")


def _named(paths: list[str]) -> str:
    return "+".join(path.removeprefix("blocks.*.") for path in paths)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_json()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
