"""From an interval and a published figure to one of five words, and a sentence that says why."""

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.claims.claim import Claim, Evidence
from windtunnel.claims.filed import Filed

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell at this size"
FLOOR, NOT_RUN = "floor", "not run"
CALLS = (AGREES, DISAGREES, CANNOT_TELL, FLOOR, NOT_RUN)


@dataclass(frozen=True)
class Judged:
    """A claim beside one result of ours, or beside none. source: the file that the evidence is from."""

    claim: Claim
    call: str
    sentence: str
    evidence: Evidence | None = None
    source: str = ""


def judged(claims: Sequence[Claim], filed: Sequence[Filed]) -> list[Judged]:
    """Every claim with every counterpart among the filed results; a claim without one is there once, as not run."""
    found = []
    for claim in claims:
        beside = [
            Judged(claim, *judge(claim, one), evidence=one, source=document.name)
            for document in filed
            for one in claim.read(document)
        ]
        found += beside or [Judged(claim, NOT_RUN, claim.missing or "Not measured here yet.")]
    return found


def judge(claim: Claim, ours: Evidence) -> tuple[str, str]:
    """The call and its reason.

    It agrees where our interval reaches the published range and leaves out what there would be without the effect; it
    disagrees where it does not reach the range; it cannot tell where the interval holds both, or where the result
    carries no claim of its own.
    """
    figure = claim.figure
    if ours.floor:
        return FLOOR, "Nothing was learned by the baseline, so that there is nothing to compare."
    if ours.doubts:
        return CANNOT_TELL, f"The result carries no claim: {'; '.join(ours.doubts)}."
    if ours.high < figure.low or ours.low > figure.high:
        return DISAGREES, _how_far(claim, ours)
    if figure.whole and not (figure.low <= ours.low and ours.high <= figure.high):
        return CANNOT_TELL, "The interval reaches beyond what would count as equal."
    if figure.nothing is not None and ours.low <= figure.nothing <= ours.high:
        return CANNOT_TELL, "The interval holds both the published figure and no effect at all."
    return AGREES, "The interval holds the published figure."


def _how_far(claim: Claim, ours: Evidence) -> str:
    """Why the published range is missed: too little of the effect, none that can be seen, the opposite, too much."""
    figure, nothing = claim.figure, claim.figure.nothing
    if nothing is None:
        return "The interval lies outside the published range."
    if ours.low <= nothing <= ours.high:
        return "No effect is seen, and the interval leaves out the published one."
    rises = figure.low > nothing
    if (ours.low > nothing) != rises:
        return "The effect is the opposite of the published one."
    beyond = ours.low > figure.high if rises else ours.high < figure.low
    return f"The effect has the published direction and is {'larger' if beyond else 'smaller'}."
