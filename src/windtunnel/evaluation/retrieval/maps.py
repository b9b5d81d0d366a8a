"""Maps of a retrieval task: each arm's, and its difference from the first one's, cell by cell."""

import math
from collections.abc import Sequence
from typing import Any

from scipy import stats

from windtunnel.evaluation.base import Arm
from windtunnel.evaluation.estimates import Figures, spelled
from windtunnel.report import Axis, Chart, HeatMap, Items, Notice, Part, Series, Table, colour, marker
from windtunnel.report.figures import byte_count, fixed, signed
from windtunnel.statistics import holm, t_quantile

LEVEL = 0.05


def compared(arms: Sequence[Arm]) -> Figures:
    """For each arm but the first: differences in exact answers [row][column], p values adjusted by Holm, and whole."""
    return {arm.label: _difference(arms[0].figures, arm.figures) for arm in arms[1:]}


def p_value(baseline: Figures, variant: Figures) -> float:
    """Two-sided, of one cell: an exact test of the items on which two runs differ, or Welch's over seeds.

    The items of both are the same, so with one seed an arm it is the sign test (McNemar's, exact). Between seeds of
    which none differs from the others Welch's test has nothing to go by: then p is 1 or 0.
    """
    first, second = baseline["exact"], variant["exact"]
    if first["over"] == "seeds" and second["over"] == "seeds":
        return _welch(first, second)
    if first["over"] == "seeds" or second["over"] == "seeds":
        return 1.0  # one seed beside several: nothing is known of its spread
    pairs = zip(baseline["items"]["right"], variant["items"]["right"], strict=True)
    ways = [b > a for a, b in pairs if a != b]
    return float(stats.binomtest(sum(ways), len(ways)).pvalue) if ways else 1.0


def map_parts(key: str, title: str, across: str, down: str, arms: Sequence[Arm]) -> list[Part]:
    """The table of means, them against decoding state, a map for each arm, and one for each difference."""
    differences = compared(arms)
    floor = bool(arms[0].figures.get("floor"))
    return [
        *([_floor(arms[0].label)] if floor else []),
        _table(f"{title}: a floor, not a result" if floor else title, down, arms),
        *([_against_state(key, arms)] if len(arms) > 1 else []),
        *(_map(f"{key}-{k}", arm, across, down) for k, arm in enumerate(arms)),
        *(
            _difference_map(f"{key}-difference-{k}", arms[0], arm, differences[arm.label], across, down)
            for k, arm in enumerate(arms[1:])
        ),
    ]


def _floor(label: str) -> Notice:
    said = [
        f"{label} finds less than 5 points more than guessing would, so that nothing follows from what others find: "
        "shorter texts, longer training, or text with needles to train on (`windtunnel needles`) would change that."
    ]
    return Notice(title="A floor, not a result", parts=[Items(items=said)], kind="warning")


def _welch(first: Figures, second: Figures) -> float:
    errors = [_error(each) for each in (first, second)]
    difference = second["value"] - first["value"]
    variance = sum(error**2 for error in errors)
    if not variance:
        return 1.0 if difference == 0 else 0.0
    freedom = variance**2 / sum(e**4 / (each["n"] - 1) for e, each in zip(errors, (first, second), strict=True))
    return float(2 * stats.t.sf(abs(difference) / math.sqrt(variance), freedom))


def _error(estimate: Figures) -> float:
    """The standard error that a t interval over seeds was made from."""
    half: float = (estimate["high"] - estimate["low"]) / 2
    return half / t_quantile(0.95, estimate["n"] - 1)


def _difference(baseline: Figures, variant: Figures) -> Figures:
    pairs = [list(zip(*lines, strict=True)) for lines in zip(baseline["cells"], variant["cells"], strict=True)]
    flat = [p_value(*pair) for line in pairs for pair in line]
    wide = len(baseline["columns"])
    adjusted = holm(flat)
    return {
        "exact": [[b["exact"]["value"] - a["exact"]["value"] for a, b in line] for line in pairs],
        "p": [adjusted[k : k + wide] for k in range(0, len(adjusted), wide)],
        "whole": variant["whole"]["exact"]["value"] - baseline["whole"]["exact"]["value"],
    }


def _table(title: str, down: str, arms: Sequence[Arm]) -> Table:
    labels = arms[0].figures["rows"]
    wrote = [name for name in ("found",) if all(name in arm.figures["whole"] for arm in arms)]
    rows = [
        [
            arm.label,
            str(len(arm.seeds)),
            spelled(arm.figures["whole"]["exact"]),
            *(spelled(arm.figures["whole"][name]) for name in wrote),
            spelled(arm.figures["whole"]["nats"]),
            byte_count(arm.figures["state_bytes"]),
            byte_count(arm.figures["read_bytes"]),
            *(fixed(line["exact"]["value"], 2) for line in arm.figures["by_row"]),
        ]
        for arm in arms
    ]
    columns = ("arm", "seeds", "exact answers", *wrote, "nats a token", "state", "bytes a token reads", *labels)
    note = (
        f"The columns on the right: exact answers by {down}. Intervals are over texts, or over seeds. State: of one "
        f"sequence after {arms[0].figures['length']:,} tokens; a token of the answer reads it and the weights."
    )
    return Table(caption=title, columns=columns, rows=rows, numeric=range(1, len(columns)), note=note)


def _against_state(key: str, arms: Sequence[Arm]) -> Chart:
    """Exact answers over the bytes that decoding carries, a point an arm."""
    points = [
        Series(
            name=arm.label,
            x=[arm.figures["state_bytes"]],
            y=[arm.figures["whole"]["exact"]["value"]],
            low=[arm.figures["whole"]["exact"]["low"]],
            high=[arm.figures["whole"]["exact"]["high"]],
            colour=colour(index),
            marker=marker(index),
            labels=[arm.label],
            tips=[f"{arm.label}\n{byte_count(arm.figures['state_bytes'])}\n{spelled(arm.figures['whole']['exact'])}"],
        )
        for index, arm in enumerate(arms)
        if arm.figures["state_bytes"]
    ]
    return Chart(
        key=f"{key}-state",
        title="Exact answers against decoding state",
        description="; ".join(f"{one.name} {fixed(one.y[0], 2)} with {byte_count(one.x[0])}" for one in points),
        x=Axis(title="bytes of state (log scale)", log=True, form=byte_count, base=2),
        y=Axis(title="exact answers", form=fixed, limits=(0.0, 1.05)),
        series=points,
    )


def _map(key: str, arm: Arm, across: str, down: str) -> HeatMap:
    cells: list[list[Any]] = arm.figures["cells"]
    return HeatMap(
        key=key,
        title=f"Exact answers of {arm.label}",
        description=f"Share of exact answers by {down} and {across}; a deeper colour is more.",
        x=across,
        y=down,
        columns=arm.figures["columns"],
        rows=arm.figures["rows"],
        values=[[cell["exact"]["value"] for cell in line] for line in cells],
        words=[[fixed(cell["exact"]["value"], 2) for cell in line] for line in cells],
        tips=[
            [f"{row}, {column}\n{_scores(cell)}" for column, cell in zip(arm.figures["columns"], line, strict=True)]
            for row, line in zip(arm.figures["rows"], cells, strict=True)
        ],
        note="Each cell's interval shows at it: Wilson's over items, or t over seeds.",
    )


def _scores(cell: Figures) -> str:
    found = f"\nfound in what it wrote {spelled(cell['found'], 2)}" if "found" in cell else ""
    return f"exact {spelled(cell['exact'], 2)}{found}\nnats a token {spelled(cell['nats'])}"


def _difference_map(key: str, baseline: Arm, arm: Arm, found: Figures, across: str, down: str) -> HeatMap:
    figures = arm.figures
    tips = [
        [
            f"{row}, {column}\n{signed(value, 2)}, p = {p:.2g} after Holm"
            for column, value, p in zip(figures["columns"], values, ps, strict=True)
        ]
        for row, values, ps in zip(figures["rows"], found["exact"], found["p"], strict=True)
    ]
    return HeatMap(
        key=key,
        title=f"{arm.label} less {baseline.label}",
        description=f"Difference in the share of exact answers by {down} and {across}.",
        x=across,
        y=down,
        columns=figures["columns"],
        rows=figures["rows"],
        values=found["exact"],
        words=[[signed(value, 2) if value else "0" for value in line] for line in found["exact"]],
        tips=tips,
        marked=[[p < LEVEL for p in line] for line in found["p"]],
        note=(
            "Framed cells differ at 5 %, all cells of the map together (Holm). With one seed an arm that holds for "
            "these two runs, not for their architectures."
        ),
    )
