"""The claims with their calls, as a Markdown page and as JSON values; the same filed results give the same bytes."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from windtunnel.claims.judge import CALLS, NOT_RUN, Judged
from windtunnel.report import Table

COMMAND = "windtunnel claims --write docs/claims.md"
_HEAD = f"""# Published results beside ours

Written by `{COMMAND}` from what is filed in `benchmarks/results/`. The papers' figures were
typed, with their source; ours are read from the files that stand beside them, and a test holds this page to them.

A call is about the small counterpart that was run, in its own setting; it does not say whether a paper's own experiment
is right. Sizes here are thousands of times smaller than the papers', budgets too, and gains may need size to show.

| call | when |
|---|---|
| agrees | our 95 % interval reaches the published figure and leaves out what there would be without the effect |
| disagrees | our interval does not reach the published figure: too little, nothing, the opposite, or too much |
| cannot tell at this size | it holds both, its study is inconclusive, or it carries no claim (one seed, untuned arm) |
| floor | the baseline did not learn the task, so that there is nothing to compare |
| not run | no filed result is a counterpart; the command makes one |
"""


def page(found: Sequence[Judged]) -> str:
    """The whole page."""
    parts = [_HEAD, _counts(found)]
    for paper, of_paper in groupby(found, key=lambda one: one.claim.paper):
        parts.append(f"## {paper}\n")
        parts += [_section(list(rows)) for _, rows in groupby(of_paper, key=lambda one: one.claim.name)]
    return "\n".join(parts)


def table(found: Sequence[Judged]) -> Table:
    """Everything in one table, for terminals."""
    rows = [
        [one.claim.name, one.claim.figure.text, one.evidence.shown if one.evidence else "", one.call] for one in found
    ]
    return Table(caption="Published results beside ours", columns=("claim", "published", "ours", "call"), rows=rows)


def document(found: Sequence[Judged]) -> dict[str, Any]:
    """Everything as JSON values; open ends are None."""
    return {"calls": _tally(found), "claims": [_record(one) for one in found]}


def _tally(found: Sequence[Judged]) -> dict[str, int]:
    return {call: sum(one.call == call for one in found) for call in CALLS}


def _counts(found: Sequence[Judged]) -> str:
    claims = len({one.claim.name for one in found})
    calls = ", ".join(f"{number} {call}" for call, number in _tally(found).items() if number)
    return f"{claims} published results, {len(found)} lines: {calls}.\n"


def _section(rows: Sequence[Judged]) -> str:
    claim = rows[0].claim
    lines = [
        f"### `{claim.name}`: {claim.says}\n",
        f"Published: **{claim.figure.text}** ({claim.place}; {claim.setting}). Compared: {claim.quantity}.\n",
    ]
    if rows[0].call == NOT_RUN:
        lines.append(f"**{NOT_RUN}**. {rows[0].sentence}\n")
    else:
        lines.append(_beside(rows))
    if claim.command:
        lines.append(f"    {claim.command}\n")
    return "\n".join(lines)


def _beside(rows: Sequence[Judged]) -> str:
    cells = []
    for one in rows:
        assert one.evidence is not None
        ours = one.evidence
        cells.append([ours.shown, ours.setting, ours.grade, f"**{one.call}**. {one.sentence}", f"`{one.source}`"])
    columns = ("ours [95 %]", "setting", "grade", "call", "from")
    return Table(caption="", columns=columns, rows=cells).markdown()


def _record(one: Judged) -> dict[str, Any]:
    claim, ours = one.claim, one.evidence
    return {
        "name": claim.name,
        "paper": claim.paper,
        "place": claim.place,
        "says": claim.says,
        "published": claim.figure.text,
        "published_setting": claim.setting,
        "quantity": claim.quantity,
        "command": claim.command,
        "call": one.call,
        "sentence": one.sentence,
        "source": one.source,
        "ours": None
        if ours is None
        else {
            "value": ours.value,
            "ci95": [end if math.isfinite(end) else None for end in (ours.low, ours.high)],
            "shown": ours.shown,
            "setting": ours.setting,
            "grade": ours.grade,
            "doubts": list(ours.doubts),
        },
    }
