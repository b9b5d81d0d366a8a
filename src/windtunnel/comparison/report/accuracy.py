"""A study of a synthetic task: who solves it, how soon, at which length and difficulty, with how much state."""

from collections.abc import Mapping, Sequence
from typing import Any

from windtunnel.comparison.report import wording
from windtunnel.comparison.report.reading import Arm, Comparison, Estimate, Study, bounded, items, mapping, summary
from windtunnel.report import Axis, Chart, Finding, Guide, Items, Notice, Part, Section, Series, Table, Tabs, figures
from windtunnel.report.figures import number_or_none

FLOOR = "floor"
_LEGEND = (
    "Accuracy is the share of right answers on held-out items, whole the share of items with all of them right; ± and "
    "[ ] are 95 % intervals over seeds. Solved means 99 % of the answers; a median of runs most of which did not is "
    "beyond the budget."
)


def is_task(study: Study) -> bool:
    """Whether the study is about a synthetic task."""
    return any(arm.part("task") for arm in study.arms)


def accuracy_of(arm: Arm) -> Estimate:
    """Share of right answers on the task as trained."""
    return summary(arm.part("task").get("accuracy"))


def task_table(study: Study) -> Table:
    """One line an arm."""
    columns = (
        "arm",
        "body parameters",
        "state",
        "LR",
        "accuracy",
        "whole items",
        "best of sweep",
        "runs that solve",
        "median steps",
        "Δ accuracy",
        "log-rank p",
        "verdict",
    )
    rows = [_row(study, arm) for arm in study.arms]
    return Table(caption=_caption(study), columns=columns, rows=rows, numeric=range(1, 11), note=_LEGEND)


def task_sections(study: Study) -> list[Section]:
    """What replaces loss, speedups and seeds."""
    found = [_verdict(study), _curves(study), _learning(study), _state(study)]
    return [section for section in found if section is not None]


def _caption(study: Study) -> str:
    task = next((arm.part("task") for arm in study.arms if arm.part("task")), {})
    chance, guess = number_or_none(task.get("chance")), number_or_none(task.get("guess"))
    told = f"{study.part('data').get('name', 'task')}; chance {figures.fixed(chance)}"
    return told if chance == guess else f"{told}, a guess among the answers shown {figures.fixed(guess)}"


def _row(study: Study, arm: Arm) -> list[str]:
    if arm.failed:
        return [wording.arm_words(arm), *["" for _ in range(10)], "failed"]
    task, compared = arm.part("task"), study.comparison(arm)
    verdict = "" if compared is None else compared.verdict
    if arm.is_baseline and not _solves(arm):
        verdict = FLOOR
    return [
        wording.arm_words(arm),
        figures.counted(arm.number("n_body")),
        figures.byte_count(number_or_none(task.get("state_bytes"))),
        wording.rate_words(arm),
        _estimate(accuracy_of(arm)),
        figures.fixed(summary(task.get("whole")).value),
        figures.fixed(number_or_none(task.get("max_over_sweep"))),
        f"{len(_solved(arm))} of {len(items(task.get('solved_at')))}",
        _median(task),
        "" if compared is None else _difference(compared),
        "" if compared is None else _p(compared),
        verdict,
    ]


def _solved(arm: Arm) -> list[float]:
    return [float(step) for step in items(arm.part("task").get("solved_at")) if step is not None]


def _solves(arm: Arm) -> bool:
    return (number_or_none(arm.part("task").get("solved")) or 0.0) > 0.5


def _median(task: Mapping[str, Any]) -> str:
    median = number_or_none(task.get("median_steps"))
    return f"> {figures.exact(number_or_none(task.get('steps')))}" if median is None else figures.exact(median)


def _difference(compared: Comparison) -> str:
    change = bounded(compared.raw.get("delta_accuracy"), compared.raw.get("ci95_accuracy"))
    ends = "" if change.low is None else f" {figures.interval(change.low, change.high)}"
    return f"{figures.signed(change.value)}{ends}"


def _p(compared: Comparison) -> str:
    return figures.fixed(number_or_none(compared.raw.get("log_rank_p")))


def _estimate(value: Estimate) -> str:
    return figures.fixed(value.value) + ("" if value.half is None else f" ±{figures.fixed(value.half)}")


def _verdict(study: Study) -> Section:
    base = study.baseline
    parts: list[Part] = [_finding(study, arm) for arm in wording.ranked(study)]
    if base is not None and not base.failed and not _solves(base):
        said = [
            f"{base.label} does not solve the task in most of its runs, so nothing is concluded from what others do: "
            "an easier setting, or a longer budget, would make it a comparison."
        ]
        parts.insert(0, Notice(title="A floor, not a result", parts=[Items(items=said)], kind="warning"))
    lead = (
        "An arm wins where it gives more right answers than the baseline, seed by seed. Where both solve the task, "
        "what is left is how soon: a log-rank test, in which runs that did not solve it count as later than the budget."
    )
    return Section(key="verdict", title="Verdict", lead=lead, parts=[*parts, task_table(study)])


def _finding(study: Study, arm: Arm) -> Finding:
    if arm.failed:
        return Finding(
            title=arm.name, word="failed", text="No run of this arm finished.", colour=arm.colour, tone="bad"
        )
    task, compared = arm.part("task"), study.comparison(arm)
    word = "baseline" if compared is None else compared.verdict
    text = (
        f"{_estimate(accuracy_of(arm))} of the answers right, {len(_solved(arm))} of "
        f"{len(items(task.get('solved_at')))} runs solve it, in a median of {_median(task)} steps; "
        f"{figures.byte_count(number_or_none(task.get('state_bytes')))} of state."
    )
    remarks = (
        [] if compared is None else [f"Δ accuracy {_difference(compared)}", *map(str, items(compared.raw.get("caps")))]
    )
    beyond = [str(label) for label in items(task.get("beyond"))]
    if beyond:
        remarks.append(f"cannot be asked {', '.join(beyond)}: beyond its positions")
    tone = "plain" if compared is None else wording.tone(word)
    return Finding(title=arm.name, word=word, text=text, tone=tone, colour=arm.colour, remarks=remarks)


def _curves(study: Study) -> Section | None:
    """Accuracy along each setting of the ladder, and by what tells items apart."""
    settings = mapping(study.part("data").get("task"))
    names = list(dict.fromkeys(_changed(rung)[0] for arm in study.arms for rung in _rungs(arm) if _changed(rung)[0]))
    tabs: list[tuple[str, Part]] = []
    for name in names:
        trained = number_or_none(settings.get(name))
        points = {arm.name: _along(arm, name, trained) for arm in study.arms}
        tabs.append((name, _chart(study, f"by-{name}", f"Accuracy against {name}", name, points, trained)))
    for name in dict.fromkeys(name for arm in study.arms for name in mapping(arm.part("task").get("aspects"))):
        points = {arm.name: _of_aspect(arm, name) for arm in study.arms}
        title = f"Accuracy on the task as trained, by {name}"
        tabs.append((f"{name} of the item", _chart(study, f"of-{name}", title, name, points, None)))
    if not tabs:
        return None
    lead = (
        "The model trained on one setting, asked others: longer, shorter, harder. The line is where it was trained. "
        "How far a model gets beyond depends on how long, and at what length, it was trained."
    )
    return Section(
        key="accuracy",
        title="Accuracy by length and difficulty",
        short="Accuracy",
        lead=lead,
        parts=[Tabs(title="Accuracy against", tabs=tabs)],
    )


def _rungs(arm: Arm) -> list[Mapping[str, Any]]:
    return [mapping(rung) for rung in items(arm.part("task").get("rungs"))]


def _changed(rung: Mapping[str, Any]) -> tuple[str, float | None]:
    """The setting that a rung changes (of several the last) and its value; an empty name for the task as trained."""
    name, equals, value = str(rung.get("label", "")).split(",")[-1].partition("=")
    try:
        return (name, float(value)) if equals else ("", None)
    except ValueError:
        return "", None


def _along(arm: Arm, name: str, trained: float | None) -> list[tuple[float, Estimate]]:
    found = []
    for rung in _rungs(arm):
        changed, value = _changed(rung)
        at = trained if changed == "" else value if changed == name else None
        if at is not None:
            found.append((at, summary(rung.get("accuracy"))))
    return sorted(found, key=lambda point: point[0])


def _of_aspect(arm: Arm, name: str) -> list[tuple[float, Estimate]]:
    rows = [mapping(row) for row in items(mapping(arm.part("task").get("aspects")).get(name))]
    middle = [((number_or_none(row.get("from")) or 0.0) + (number_or_none(row.get("to")) or 0.0)) / 2 for row in rows]
    return [(at, summary(row.get("accuracy"))) for at, row in zip(middle, rows, strict=True)]


def _chart(
    study: Study,
    key: str,
    title: str,
    name: str,
    points: Mapping[str, Sequence[tuple[float, Estimate]]],
    trained: float | None,
) -> Chart:
    shown = [(arm, points[arm.name]) for arm in study.arms if points[arm.name]]
    log = all(at > 0 for _, line in shown for at, _ in line)
    chance = next((number_or_none(arm.part("task").get("chance")) for arm, _ in shown), None)
    guides = [] if chance is None else [Guide(axis="y", value=chance, label="chance")]
    if trained is not None:
        guides.append(Guide(axis="x", value=trained, label="trained"))
    return Chart(
        key=key,
        title=title,
        description="; ".join(
            f"{arm.name}: {', '.join(figures.fixed(e.value, 2) for _, e in line)}" for arm, line in shown
        ),
        x=Axis(title=name, log=log, form=figures.plain, base=2),
        y=Axis(title="accuracy", form=figures.fixed, limits=(0.0, 1.05)),
        series=[_line(arm, line, name) for arm, line in shown],
        guides=guides,
    )


def _line(arm: Arm, line: Sequence[tuple[float, Estimate]], name: str) -> Series:
    return Series(
        name=arm.name,
        x=[at for at, _ in line],
        y=[one.value or 0.0 for _, one in line],
        low=[one.low for _, one in line],
        high=[one.high for _, one in line],
        colour=arm.colour,
        marker=arm.marker,
        line="solid",
        tips=[f"{arm.name}, {name} {figures.plain(at)}\naccuracy {_estimate(one)}" for at, one in line],
    )


def _learning(study: Study) -> Section | None:
    """Accuracy on the way."""
    series = []
    for arm in study.arms:
        probes = mapping(arm.part("task").get("probes"))
        steps, accuracies = items(probes.get("steps")), items(probes.get("accuracy"))
        if steps:
            low, high = list(items(probes.get("low"))), list(items(probes.get("high")))
            x, y = [float(step) for step in steps], [float(value) for value in accuracies]
            series.append(Series(name=arm.name, x=x, y=y, colour=arm.colour, line="solid", low=low, high=high))
    if not series:
        return None
    solved = study.number("settings", "solved")
    chart = Chart(
        key="learning",
        title="Accuracy on 256 held-out items while it is learned",
        description="; ".join(f"{one.name} ends at {figures.fixed(one.y[-1], 2)}" for one in series),
        x=Axis(title="optimiser steps", form=figures.counted),
        y=Axis(title="accuracy", form=figures.fixed, limits=(0.0, 1.05)),
        series=series,
        guides=[] if solved is None else [Guide(axis="y", value=solved, label="solved")],
        note="Seed means with a 95 % band. A mean over runs that jump at different steps rises slowly: see the median.",
    )
    return Section(key="learning", title="How soon it is learned", short="Learning", parts=[chart])


def _state(study: Study) -> Section | None:
    """Accuracy against the bytes that decoding carries."""
    known = [
        (arm, size)
        for arm in study.arms
        if not arm.failed and (size := number_or_none(arm.part("task").get("state_bytes")))
    ]
    if len(known) < 2:
        return None
    chart = Chart(
        key="accuracy-state",
        title="Accuracy against decoding state",
        description="; ".join(f"{arm.name} {figures.byte_count(size)}" for arm, size in known),
        x=Axis(title="bytes of state after an item (log scale)", log=True, form=figures.byte_count, base=2),
        y=Axis(title="accuracy", form=figures.fixed, limits=(0.0, 1.05)),
        series=[
            Series(
                name=arm.name,
                x=[size],
                y=[accuracy_of(arm).value or 0.0],
                low=[accuracy_of(arm).low],
                high=[accuracy_of(arm).high],
                colour=arm.colour,
                marker=arm.marker,
                tips=[f"{arm.name}\n{figures.byte_count(size)} of state\naccuracy {_estimate(accuracy_of(arm))}"],
                labels=[arm.name],
            )
            for arm, size in known
        ],
        note="Any causal model needs bits of state in proportion to what it must recall (the axis of Zoology).",
    )
    return Section(key="state", title="Accuracy against state", short="State", parts=[chart])
