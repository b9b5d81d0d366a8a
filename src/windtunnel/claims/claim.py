"""The words of the room: a claim is what a paper printed, evidence what a filed result of ours says of it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from windtunnel.claims.filed import Filed


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A published figure as a range of the measured quantity; a direction alone is a range without an end.

    text: the figure as the paper prints it. nothing: the value that the quantity would have without the effect; None
    where the claim is that there is none. whole: our whole interval has to lie in the range, not a part of it: for
    claims of equality, which a wide interval does not support.
    """

    text: str
    low: float = -math.inf
    high: float = math.inf
    nothing: float | None = None
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One measurement of ours that a claim can be held to.

    value, low, high: of the claim's quantity, with its 95 % interval; an open end is infinite, the value of what is
    only bounded None. shown: the figure in words. setting: where it was measured. grade: a study's (A to E), empty for
    a benchmark. doubts: why nothing may be concluded from it. floor: the baseline learned nothing.
    """

    value: float | None
    low: float
    high: float
    shown: str
    setting: str
    grade: str = ""
    doubts: tuple[str, ...] = ()
    floor: bool = False


def nothing(filed: Filed) -> Iterable[Evidence]:
    """Finds no evidence: for what no command measures."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published result, and how a result of ours is recognised as its counterpart.

    name: short, unique. paper, place: the source; place names section, figure or table. says: the result in one
    sentence. setting: the paper's. quantity: what is compared. read: all evidence for it in one filed document.
    command: what measures it here; missing: why nothing does. Nothing of ours is written in a claim.
    """

    name: str
    paper: str
    place: str
    says: str
    setting: str
    quantity: str
    figure: Figure
    read: Callable[[Filed], Iterable[Evidence]] = nothing
    command: str = ""
    missing: str = ""
