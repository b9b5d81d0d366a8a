"""Tuning: every arm's learning-rate sweep on one axis."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from windtunnel.comparison.report.reading import Arm, Study, items, mapping
from windtunnel.report import Axis, Chart, Part, Section, Series, Table, figures
from windtunnel.report.scales import limits


def sweep_section(study: Study) -> Section | None:
    """The sweep plot and what was chosen."""
    if not any(_trials(arm) for arm in study.arms):
        return None
    parts: list[Part] = [_chart(study), _table(study)]
    lead = (
        "Every arm had the same number of trials, on a seed of its own that is never reported. A variant "
        "that wins only with a "
        "learning rate found for it, beside a baseline that was not tuned, has shown nothing."
    )
    return Section(key="tuning", title="Tuning", lead=lead, parts=parts)


def _trials(arm: Arm) -> list[Mapping[str, Any]]:
    """Trials at the sweep's own horizon (that of most), rates ascending; diverged ones may have no loss."""
    known = [mapping(trial) for trial in items(arm.raw.get("trials"))]
    horizons = Counter(str(trial.get("horizon")) for trial in known)
    usual = max(horizons, key=lambda name: horizons[name], default="")
    swept = [t for t in known if figures.number_or_none(t.get("lr")) and str(t.get("horizon")) == usual]
    return sorted(swept, key=lambda t: float(t["lr"]))


def _settled(arm: Arm) -> list[tuple[float, float]]:
    """(rate, loss) of the trials that did not diverge."""
    return [
        (float(t["lr"]), loss)
        for t in _trials(arm)
        if not t.get("diverged") and (loss := figures.number_or_none(t.get("loss"))) is not None
    ]


def _chart(study: Study) -> Chart:
    settled = {arm.name: _settled(arm) for arm in study.arms}
    low, high = limits([loss for points in settled.values() for _, loss in points])
    top = high + 0.1 * (high - low)
    series = [one for arm in study.arms for one in _series(arm, settled[arm.name], (high + top) / 2)]
    return Chart(
        key="sweeps",
        title="Loss of the tuning trials against the learning rate",
        description="; ".join(f"{arm.name} chose {figures.rate(arm.number('lr'))}" for arm in study.arms),
        x=Axis(title="peak learning rate (log scale)", log=True, form=figures.rate),
        y=Axis(title="loss of the trial (nats a token)", form=figures.fixed, limits=(low, top)),
        series=series,
        note=(
            "A ring marks the chosen rate. A cross at the top is a trial that diverged: it counts as the loss of "
            "an untrained model, not as missing."
        ),
    )


def _series(arm: Arm, settled: list[tuple[float, float]], ceiling: float) -> list[Series]:
    tips = [f"{arm.name}, learning rate {figures.rate(rate)}\n{figures.fixed(loss)} nats" for rate, loss in settled]
    x, y = [rate for rate, _ in settled], [loss for _, loss in settled]
    found = (
        [Series(name=arm.name, x=x, y=y, colour=arm.colour, marker=arm.marker, line="solid", tips=tips)]
        if settled
        else []
    )
    broken = [float(t["lr"]) for t in _trials(arm) if t.get("diverged")]
    if broken:
        said = [f"{arm.name}, learning rate {figures.rate(rate)}\ndiverged" for rate in broken]
        found.append(
            Series(
                name=arm.name,
                x=broken,
                y=[ceiling] * len(broken),
                colour=arm.colour,
                marker="cross",
                tips=said,
                listed=False,
            )
        )
    chosen = arm.number("lr")
    if chosen and settled:
        at = _between(settled, chosen)
        edge = " (at the edge of the grid)" if arm.raw.get("lr_at_edge") else ""
        tip = f"{arm.name} chose {figures.rate(chosen)}{edge}"
        label = "edge" if edge else ""
        found.append(
            Series(
                name=arm.name,
                x=[chosen],
                y=[at],
                colour=arm.colour,
                marker="ring",
                tips=[tip],
                labels=[label],
                listed=False,
            )
        )
    return found


def _between(points: list[tuple[float, float]], rate: float) -> float:
    """The loss at a rate, straight between the trials on the log axis."""
    below = [p for p in points if p[0] <= rate * (1 + 1e-9)]
    above = [p for p in points if p[0] >= rate * (1 - 1e-9)]
    if not below or not above:
        return (below or above)[-1 if below else 0][1]
    (left, first), (right, last) = below[-1], above[0]
    if right <= left * (1 + 1e-6):
        return first
    share = math.log(rate / left) / math.log(right / left)
    return first + share * (last - first)


def _table(study: Study) -> Table:
    rows = []
    for arm in study.arms:
        trials = _trials(arm)
        best = items(arm.raw.get("expected_best"))
        said = [figures.fixed(figures.number_or_none(value), 2) for value in best]
        rows.append(
            (
                arm.name,
                figures.rate(arm.number("lr")),
                "yes" if arm.raw.get("lr_at_edge") else "no",
                str(len(trials)),
                str(sum(bool(t.get("diverged")) for t in trials)),
                figures.fixed(arm.number("lr_sensitivity")),
                ", ".join(said) or figures.MISSING,
                str(arm.raw.get("lr_reason") or ("untuned" if arm.raw.get("untuned") else "tuned")),
            )
        )
    columns = (
        "arm",
        "chosen rate",
        "at edge",
        "trials",
        "diverged",
        "sensitivity",
        "expected best of 1, 2, … trials",
        "how it was chosen",
    )
    note = (
        "Sensitivity: mean loss above the best over rates from 1/8 to 8 times the chosen one; smaller is easier "
        "to tune."
    )
    return Table(caption="What the sweeps found", columns=columns, rows=rows, numeric=(1, 3, 4, 5), note=note)
