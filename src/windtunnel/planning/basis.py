"""Where a figure of a plan comes from. Every figure says so, for a plan is only as good as the weakest of them."""

from typing import Literal, NamedTuple

Basis = Literal["counted", "published", "measured", "given", "assumed", "modelled"]

MEANINGS: dict[Basis, str] = {
    "counted": "read off the model itself: parameters, operations, bytes of its tensors",
    "published": "printed by a vendor or a paper",
    "measured": "timed on this machine, just now or in the cache of its peaks",
    "given": "set by an option or a file, or computed from what was counted and that",
    "assumed": "a convention or a guess of the planner; an option changes it",
    "modelled": "computed from the others, and no better than the assumptions among them",
}


class Input(NamedTuple):
    """Something that a plan rests on: its name, its value in words, where it comes from, and the source in words."""

    name: str
    value: str
    basis: Basis
    source: str
