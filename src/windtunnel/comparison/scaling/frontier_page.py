"""Pareto frontiers on the page: the stair, what is surely off it, and which arms it is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from windtunnel.comparison.scaling.marks import COMPUTE, LOSS
from windtunnel.report import Axis, Chart, Part, Section, Series, Table, colour, figures, marker

_COSTS = {
    "compute": ("Loss against training compute", COMPUTE),
    "parameters": (
        "Loss against parameters",
        Axis(title="parameters, the head included (log scale)", log=True, form=figures.counted),
    ),
    "state_bytes": (
        "Loss against the decoding state at the trained length",
        Axis(title="bytes of state of one sequence (log scale)", log=True, form=figures.counted),
    ),
}


_COLUMNS = {"compute": "by compute", "parameters": "by parameters", "state_bytes": "by state"}


def frontier_section(found: Mapping[str, Any], arms: Sequence[str]) -> Section:
    """A chart for each cost, and how often each arm is on its frontier."""
    parts: list[Part] = [_chart(cost, one, arms) for cost, one in found.items()]
    return Section(
        key="frontiers",
        title="Pareto frontiers",
        short="Frontiers",
        lead="Filled marks: points that none beats for certain. Hollow ones are dominated: another costs no more, and "
        "its 95 % interval lies wholly below.",
        parts=[*parts, _table(found, arms)],
    )


def _chart(cost: str, found: Mapping[str, Any], arms: Sequence[str]) -> Chart:
    title, axis = _COSTS[cost]
    stair = [point for point in found["points"] if point["on_stair"]]
    series = [
        Series(
            name="frontier",
            x=[point["cost"] for point in stair],
            y=[point["loss"] for point in stair],
            line="step",
            colour="var(--quiet)",
        )
    ]
    for k, arm in enumerate(arms):
        for hollow in (False, True):
            own = [point for point in found["points"] if point["arm"] == arm and point["dominated"] is hollow]
            if own:
                series.append(_points(arm, own, k, hollow))
    return Chart(
        key=f"frontier-{cost}",
        title=title,
        description=f"On the frontier in more than half of the draws: {', '.join(found['family'])}",
        x=axis,
        y=LOSS,
        series=series,
        note="One mark a size and budget, the mean of its seeds with its 95 % interval.",
    )


def _points(arm: str, own: Sequence[Mapping[str, Any]], k: int, hollow: bool) -> Series:
    return Series(
        name=arm,
        x=[point["cost"] for point in own],
        y=[point["loss"] for point in own],
        low=[point["ci95"][0] for point in own],
        high=[point["ci95"][1] for point in own],
        colour=colour(k),
        marker=marker(k),
        hollow=hollow,
        tips=[
            f"{arm}, {point['name']}\n{figures.fixed(point['loss'])} nats, {point['runs']} runs\n"
            f"on the frontier in {100 * point['share']:.0f} % of the draws"
            for point in own
        ],
    )


def _table(found: Mapping[str, Any], arms: Sequence[str]) -> Table:
    rows = [
        (arm, *(f"{100 * one['shares'][arm]:.0f} %" for one in found.values()), *_counts(found["compute"], arm))
        for arm in arms
    ]
    names = [_COLUMNS[cost] for cost in found]
    draws = found["compute"]["draws"]
    return Table(
        caption="How often an arm has a point on the frontier",
        columns=("arm", *names, "points", "dominated"),
        rows=rows,
        numeric=range(1, len(names) + 3),
        note=f"Of {draws:,} draws of all losses within their noise; above 50 % an arm is of the frontier's family. "
        "Dominated: in compute.",
    )


def _counts(found: Mapping[str, Any], arm: str) -> tuple[str, str]:
    own = [point for point in found["points"] if point["arm"] == arm]
    return str(len(own)), str(sum(point["dominated"] for point in own))
