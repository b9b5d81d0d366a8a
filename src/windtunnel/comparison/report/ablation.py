"""What each part is worth: one interval a step, the way of a conversion, and what was joined or left out."""

from collections.abc import Mapping
from typing import Any

from windtunnel.comparison.ablation.parts import spelled
from windtunnel.comparison.report.reading import Study, items, mapping
from windtunnel.report import Axis, Items, Part, Prose, Row, RowChart, RowGroup, Section, Table, colour, figures, marker

_FEWEST = 3  # seeds behind a claim


def ablation_section(study: Study) -> Section | None:
    """Charts and table of an ablation; nothing for other studies."""
    found = mapping(study.raw.get("ablation"))
    effects = [mapping(one) for one in items(found.get("effects"))]
    if not effects:
        return None
    path = found.get("mode") == "path"
    parts: list[Part] = [Prose([_summary(found, effects)]), _chart(found, effects)]
    if path:
        parts.append(_way(found))
    parts.append(_table(found, effects))
    remarks = [*(str(one.get("note")) for one in effects if one.get("note")), *map(str, items(found.get("remarks")))]
    if remarks:
        parts.append(Items(items=[f"{remark}." for remark in remarks]))
    return Section(key="ablation", title="What each part is worth", short="Parts", lead=_lead(found), parts=parts)


def _lead(found: Mapping[str, Any]) -> str:
    how = (
        f"{found['recipe']} is built from {found['against']} in steps; each is held to the one before."
        if found.get("mode") == "path"
        else f"Each part of {found['recipe']} is taken away alone, back to what {found['against']} has in its place."
    )
    return f"{how} Every arm is tuned, matched and trained like any other; below 0 the part makes the loss lower."


def _summary(found: Mapping[str, Any], effects: list[Mapping[str, Any]]) -> str:
    words = [*_findings(effects), *_doubts(effects)]
    total = mapping(found.get("total"))
    if total:
        change, ends = figures.signed(total.get("delta")), figures.interval(*_pair(total, "ci95"))
        words.append(f"All parts together change the loss by {change} nats {ends}.")
        if found.get("mode") != "path":
            words.append(f"Single effects add up to {figures.signed(sum(one['delta'] for one in effects))}.")
    return " ".join(words)


def _findings(effects: list[Mapping[str, Any]]) -> list[str]:
    helps, harms = ([one for one in effects if sign * _sure(one) > 0] for sign in (-1, 1))
    words = [f"{_named(some)} {verb} beyond doubt." for some, verb in ((helps, "help"), (harms, "harm")) if some]
    return words or ["No part's effect is known to be other than 0."]


def _doubts(effects: list[Mapping[str, Any]]) -> list[str]:
    """What an interval shows and cannot claim, and why."""
    words = []
    weak = [one for one in effects if _side(one) and not _sure(one)]
    if weak:
        words.append(f"The whole interval of {_named(weak)} lies beside 0, but carries no claim yet.")
    untuned = sorted({str(label) for one in effects for label in items(one.get("untuned"))})
    if untuned:
        words.append(f"What rests on {', '.join(untuned)} is preliminary: its best rate is at the edge of those tried.")
    if any(not _enough(one) for one in effects):
        words.append(f"A claim needs {_FEWEST} seeds.")
    return words


def _sure(one: Mapping[str, Any]) -> int:
    """The side of 0 on which an effect is, of three seeds and tuned arms; else 0."""
    return _side(one) if _enough(one) and not items(one.get("untuned")) else 0


def _enough(one: Mapping[str, Any]) -> bool:
    return (figures.number_or_none(one.get("n")) or 0) >= _FEWEST


def _side(one: Mapping[str, Any]) -> int:
    """-1 or 1 where the whole simultaneous interval is on one side of 0; else 0."""
    low, high = _pair(one, "ci95_simultaneous")
    return -1 if high is not None and high < 0 else 1 if low is not None and low > 0 else 0


def _chart(found: Mapping[str, Any], effects: list[Mapping[str, Any]]) -> RowChart:
    rows = [_row(index, ", ".join(map(str, items(one.get("parts")))), one) for index, one in enumerate(effects)]
    title = "In the order of the steps" if found.get("mode") == "path" else "With the part less without it"
    return _rows(
        "parts",
        "What each part changes",
        "Mean paired difference of the final loss, with 95 % intervals widened for the number of steps; open dots are "
        "single seeds.",
        RowGroup(title=title, rows=rows),
    )


def _way(found: Mapping[str, Any]) -> RowChart:
    stages = [mapping(one) for one in items(found.get("cumulative"))]
    rows = [_row(index, str(one.get("label")), one) for index, one in enumerate(stages)]
    return _rows(
        "way",
        f"The way from {found['against']} to {found['recipe']}",
        f"The loss after each step less that of {found['against']}, with the same kind of interval.",
        RowGroup(title=f"Less {found['against']}", rows=rows),
    )


def _rows(key: str, title: str, description: str, group: RowGroup) -> RowChart:
    return RowChart(
        key=key,
        title=title,
        description=description,
        x=Axis(title="change of the loss (nats a token)", form=lambda v: figures.signed(v, 3), signed=True),
        groups=[group],
        reference=0.0,
        sides=("better", "worse"),
        note=description,
    )


def _row(index: int, label: str, one: Mapping[str, Any]) -> Row:
    low, high = _pair(one, "ci95_simultaneous")
    value = f"{figures.signed(one.get('delta'))} {figures.interval(low, high)}"
    return Row(
        label=label,
        value=value,
        point=figures.number_or_none(one.get("delta")),
        low=low,
        high=high,
        dots=[float(seed) for seed in items(one.get("seeds"))],
        colour=colour(index),
        marker=marker(index),
        tip=f"{label}\n{value}, n = {figures.plain(one.get('n'))}",
    )


def _table(found: Mapping[str, Any], effects: list[Mapping[str, Any]]) -> Table:
    changes = {str(part["name"]): mapping(part) for part in items(found.get("parts"))}
    rows = []
    for one in effects:
        names = [str(name) for name in items(one.get("parts"))]
        rows.append(
            (
                ", ".join(names),
                "; ".join(spelled(changes[name].get("before")) for name in names),
                "; ".join(spelled(changes[name].get("after")) for name in names),
                figures.signed(one.get("delta")),
                figures.interval(*_pair(one, "ci95")),
                figures.interval(*_pair(one, "ci95_simultaneous")),
                figures.fixed(one.get("p_holm")),
            )
        )
    columns = ("part", str(found["against"]), str(found["recipe"]), "change", "95 %", "95 %, all steps", "p (Holm)")
    return Table(caption="Steps", columns=columns, rows=rows, numeric=(3, 4, 5, 6))


def _named(some: list[Mapping[str, Any]]) -> str:
    return ", ".join(", ".join(map(str, items(one.get("parts")))) for one in some)


def _pair(one: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    ends = [figures.number_or_none(end) for end in items(one.get(name))]
    return (ends[0], ends[1]) if len(ends) == 2 else (None, None)
