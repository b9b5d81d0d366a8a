"""Which models an ablation trains: every part removed alone, or the baseline converted step by step.

A step that is impossible alone is joined with another; which, and why, is said with it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from windtunnel.comparison.ablation.parts import Part
from windtunnel.errors import InputError

Mode = Literal["remove", "path"]
Possible = Callable[[Collection[Part]], str]  # why a model with these parts cannot be; empty where it can


@dataclass(frozen=True)
class Step:
    """Parts that are removed or added together, and the parts that the step's model has. note: why several."""

    label: str
    parts: tuple[Part, ...]
    taken: tuple[Part, ...]
    note: str = ""


def removals(parts: Sequence[Part], possible: Possible) -> tuple[list[Step], list[str]]:
    """One model for each part, which has all but that; and what is to be said of parts that have none."""
    steps: list[Step] = []
    remarks: list[str] = []
    for part in parts:
        reason = possible(_without(parts, (part,)))
        gone = (part,) if not reason else _joined(part, parts, lambda some: possible(_without(parts, some)))
        if len(gone) == len(parts) or any(step.parts == gone for step in steps):
            remarks.append(f"{_said(part, reason)}; it goes with {', '.join(e.name for e in gone if e is not part)}")
            continue
        label = "without-" + "+".join(each.name for each in gone)
        steps.append(Step(label, gone, _without(parts, gone), _said(part, reason)))
    return steps, remarks


def conversion(parts: Sequence[Part], possible: Possible) -> list[Step]:
    """The way from the baseline to the variant: each step has all parts of the one before."""
    steps: list[Step] = []
    taken: tuple[Part, ...] = ()
    left = list(parts)
    while left:
        reason = possible((*taken, left[0]))
        added: tuple[Part, ...] | None = next(((part,) for part in left if not possible((*taken, part))), None)
        note = "" if added is None or added[0] is left[0] else f"before {left[0].name}, for {reason}"
        if added is None:
            added = _joined(left[0], left, _after(taken, possible))
            note = _said(left[0], reason)
        taken = (*taken, *added)
        left = [part for part in left if part not in added]
        label = f"{len(steps) + 1}-" + "+".join(part.name for part in added)
        steps.append(Step(label, added, taken, note))
    return steps


def _joined(part: Part, parts: Sequence[Part], possible: Possible) -> tuple[Part, ...]:
    """The fewest parts, this one among them, that make a step together."""
    others = [each for each in parts if each is not part]
    for count in range(1, len(others) + 1):
        for some in combinations(others, count):
            chosen = tuple(each for each in parts if each is part or each in some)
            if not possible(chosen):
                return chosen
    raise InputError(f"ablate: {part.name} cannot be taken apart from the rest: {possible(tuple(parts))}")


def _after(taken: tuple[Part, ...], possible: Possible) -> Possible:
    return lambda some: possible((*taken, *some))


def _without(parts: Sequence[Part], gone: Collection[Part]) -> tuple[Part, ...]:
    return tuple(part for part in parts if part not in gone)


def _said(part: Part, reason: str) -> str:
    return f"{part.name} is impossible alone: {reason}" if reason else ""
