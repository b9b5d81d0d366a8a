"""Is it minimal? What an arm changes against the baseline, and the settings it brings of its own."""

import re
from typing import Any

from markupsafe import Markup

from windtunnel.comparison.report.reading import Arm, Study, items
from windtunnel.report import Block, Details, Facts, Part, Prose, Section, Table, figures
from windtunnel.report.markup import link, tag


def minimality_section(study: Study) -> Section | None:
    """A table over the arms, then each arm's spec difference."""
    arms = [
        arm
        for arm in study.arms
        if not arm.is_baseline and (arm.part("minimality") or items(arm.raw.get("spec_difference")))
    ]
    if not arms:
        return None
    parts: list[Part] = [_table(arms), *(_block(arm) for arm in arms)]
    lead = (
        "What each idea adds in parts, parameters, settings, FLOPs and state. Everything that is not listed here "
        "is the same code."
    )
    return Section(key="minimal", title="Is it minimal?", lead=lead, parts=parts)


def settings_section(study: Study) -> Section:
    """Where an arm departs from the common training settings, and why."""
    rows = []
    for arm in study.arms:
        for name, entry in arm.part("own_settings").items():
            common, own, why = [*items(entry), None, None, None][:3]
            rows.append((arm.name, str(name), figures.plain(common), figures.plain(own), str(why or figures.MISSING)))
    lead = (
        "Settings that belong to an idea travel with it; all others, the optimiser and its schedule included, "
        "are common."
    )
    if not rows:
        return Section(
            key="own-settings", title="Own settings", lead=lead, parts=[Prose(["No arm has settings of its own."])]
        )
    columns = ("arm", "setting", "common", "own", "reason")
    return Section(
        key="own-settings",
        title="Own settings",
        lead=lead,
        parts=[Table(caption="Settings of single arms", columns=columns, rows=rows)],
    )


def _table(arms: list[Arm]) -> Table:
    rows = []
    for arm in arms:
        added, removed = (items(arm.part("minimality").get(f"parts_{what}")) for what in ("added", "removed"))
        rows.append(
            (
                arm.name,
                _count(arm.number("minimality", "parameters")),
                _count(arm.number("minimality", "settings")),
                figures.ratio(arm.number("minimality", "flops")),
                figures.ratio(arm.number("minimality", "state")),
                f"{len(added)} added, {len(removed)} removed",
                str(len(_changed(arm))),
                figures.exact(arm.number("minimality", "lines")),
            )
        )
    columns = (
        "arm",
        "parameters",
        "settings",
        "FLOPs a token",
        "state",
        "parts",
        "spec fields changed",
        "new lines of code",
    )
    return Table(caption="Against the baseline", columns=columns, rows=rows, numeric=(1, 2, 3, 4, 6, 7))


def _block(arm: Arm) -> Block:
    parts: list[Part] = [Facts(facts=_facts(arm))]
    changed = _changed(arm)
    if changed:
        rows = [
            (tag("code", str(path)), tag("code", _value(base)), tag("code", _value(own))) for path, base, own in changed
        ]
        table = Table(
            caption=f"Spec of {arm.name}, where it differs", columns=("field", "baseline", arm.name), rows=rows
        )
        parts.append(table if len(rows) <= 8 else Details(title=f"{len(rows)} fields differ", parts=[table]))
    return Block(title=f"{arm.name}: {arm.label}" if arm.label != arm.name else arm.name, parts=parts)


def _facts(arm: Arm) -> list[tuple[str, str | Markup]]:
    block, matching = arm.part("minimality"), arm.part("matching")
    facts: list[tuple[str, str | Markup]] = [
        ("Adds", "; ".join(str(part) for part in items(block.get("parts_added"))) or "nothing"),
        ("Removes", "; ".join(str(part) for part in items(block.get("parts_removed"))) or "nothing"),
    ]
    if matching:
        knob, gap = str(matching.get("knob") or "none"), figures.gap(figures.number_or_none(matching.get("gap")))
        turned = "as it is" if knob == "none" else f"{knob} = {figures.plain(matching.get('value'))}"
        facts.append(("Matched by", f"{turned} (gap {gap})"))
    if arm.raw.get("paper"):
        facts.append(("Paper", _paper(str(arm.raw["paper"]))))
    return facts


def _value(value: Any) -> str:
    """A field's value; a part as `Rope(theta=10000, layout=half)`."""
    if isinstance(value, dict) and "kind" in value:
        inner = ", ".join(f"{name}={_value(item)}" for name, item in value.items() if name != "kind")
        return f"{value['kind']}({inner})"
    return ", ".join(_value(item) for item in value) if isinstance(value, list | tuple) else figures.plain(value)


def _paper(text: str) -> str | Markup:
    """A paper's address, or its arXiv number, as a link."""
    number = re.search(r"arXiv[ :](\d{4}\.\d{4,5})", text)
    return link(text, f"https://arxiv.org/abs/{number[1]}" if number else text)


def _changed(arm: Arm) -> list[list[Any]]:
    """Path, baseline's value, own value; fields that only one of two parts has, unset, say nothing."""
    rows = [[*items(row), None, None, None][:3] for row in items(arm.raw.get("spec_difference"))]
    return [row for row in rows if row[1] != row[2]]


def _count(value: float | None) -> str:
    return f"+{figures.exact(value)}" if value is not None and value > 0 else figures.exact(value)
