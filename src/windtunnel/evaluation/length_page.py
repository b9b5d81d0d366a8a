"""The section on length: what every method costs at every length, and what changes inside beside it."""

from collections.abc import Iterator, Sequence

from windtunnel.evaluation.base import Arm
from windtunnel.evaluation.curves import Line, Point, chart, curve
from windtunnel.evaluation.estimates import Figures, spelled
from windtunnel.report import Chart, Guide, Part, Series, Table, figures

_LINES: tuple[Line, ...] = ("solid", "dashed", "dotted")
_X = "times the trained length"


def parts_of(arms: Sequence[Arm], margin: float) -> list[Part]:
    """Charts and the table."""
    parts: list[Part] = [_excess(arms, margin), _disjoint(arms), _table(arms, margin)]
    unseen, spread = _unseen(arms), _entropy(arms)
    return [*parts, *([unseen] if unseen.series else []), *([spread] if spread.series else [])]


def _methods(arms: Sequence[Arm]) -> Iterator[tuple[int, Line, Arm, Figures, str]]:
    """A colour for each line, a kind of line for each arm, the arm, the method, their name."""
    index = 0
    for place, arm in enumerate(arms):
        for method in arm.figures["methods"]:
            alone = len(arm.figures["methods"]) == 1
            yield index, _LINES[place % 3] if not alone else "solid", arm, method, _label(arm, method)
            index += 1


def _label(arm: Arm, method: Figures) -> str:
    return arm.label if len(arm.figures["methods"]) == 1 else f"{arm.label}, {method['method']}"


def _lines(arms: Sequence[Arm], figure: str) -> list[Series]:
    return [
        curve(
            name,
            [Point(p["multiple"], p[figure], f"{name}, {p['length']:,} tokens") for p in method["points"]],
            index,
            line,
        )
        for index, line, _, method, name in _methods(arms)
    ]


def _excess(arms: Sequence[Arm], margin: float) -> Chart:
    return chart(
        "length-chart",
        "X_k: nats a token more than at the trained length, same targets",
        "At 0 the longer text neither helps nor harms; far above it a model cannot read what is so long.",
        (_X, "nats a token more"),
        _lines(arms, "excess"),
        [Guide(axis="y", value=margin, label=f"{margin} nats"), *_trained(arms)],
        signed=True,
    )


def _disjoint(arms: Sequence[Arm]) -> Chart:
    return chart(
        "length-disjoint-chart",
        "All targets, in windows of the length",
        "Here longer windows also mean that fewer targets stand at a window's beginning, where little is known.",
        (_X, "nats a token"),
        _lines(arms, "disjoint"),
        _trained(arms),
    )


def _trained(arms: Sequence[Arm]) -> list[Guide]:
    """Where training ended: at 1, and where extended runs were trained on."""
    ends = {1.0: "trained"}
    for arm in arms:
        ends.setdefault(arm.figures["read_at"] / arm.figures["base"], "extended")
    return [Guide(axis="x", value=place, label=word) for place, word in ends.items()]


def _unseen(arms: Sequence[Arm]) -> Chart:
    series = [
        Series(
            name=name,
            x=[point["multiple"] for point in method["points"]],
            y=[100 * point["unseen"] for point in method["points"]],
            colour=one.colour,
            marker=one.marker,
            line=line,
            hollow=line != "solid",
        )
        for (_, line, _, method, name), one in zip(_methods(arms), _lines(arms, "excess"), strict=True)
        if all(point["unseen"] is not None for point in method["points"])
    ]
    return chart(
        "length-angles-chart",
        "Rotary angles that training never showed",
        "Of all pairs of numbers and all distances from the last token, the share whose angle is new.",
        (_X, "% of angles unseen"),
        series,
    )


def _entropy(arms: Sequence[Arm]) -> Chart:
    series = [
        curve(
            name,
            [
                Point((bucket["from"] * bucket["to"]) ** 0.5 / arm.figures["base"], bucket["nats"], name)
                for bucket in method["entropy"]
            ],
            index,
            line,
        )
        for index, line, arm, method, name in _methods(arms)
        if method["entropy"]
    ]
    return chart(
        "length-entropy-chart",
        "How spread out attention is, by the place of the query",
        "Mean entropy over heads and layers while the longest pieces are read; it rises where attention is diluted.",
        ("place of the query, times the trained length", "nats"),
        series,
        _trained(arms),
    )


def _table(arms: Sequence[Arm], margin: float) -> Table:
    rows = [
        [
            name,
            f"{point['multiple']:g}",
            figures.fixed(point["last"]["value"]),
            spelled(point["excess"], sign=True) if point["multiple"] > 1 else figures.MISSING,
            figures.fixed(point["disjoint"]["value"]),
            f"{arm.figures['effective'][method['method']]:g}",
            f"{arm.figures['documents']}",
            str(len(arm.seeds)),
        ]
        for _, _, arm, method, name in _methods(arms)
        for point in method["points"]
    ]
    return Table(
        caption="Reading past the trained length",
        columns=("arm", "k", "nats", "X_k", "disjoint", "effective", "documents", "seeds"),
        rows=rows,
        numeric=range(1, 8),
        note="nats, X_k: a token of the same targets with k times the trained length in sight, and what that is over "
        f"k = 1. disjoint: all targets. effective: the largest k with X_k of at most {margin}.",
    )
