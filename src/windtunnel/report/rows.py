"""Draws a `RowChart`: intervals in rows, with their values in words beside (or, on narrow pages, above) them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from windtunnel.report.marks import shape, stroke, text_width, words
from windtunnel.report.markup import short, tag
from windtunnel.report.plot import spaced
from windtunnel.report.scales import Scale, limits

if TYPE_CHECKING:
    from windtunnel.report.charts import Row, RowChart, RowGroup

_FONT = 13.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """How one drawing is laid out: where words stand beside the plot or above it."""

    name: str
    width: int
    row: float
    group: float
    beside: bool
    ticks: int


SIZES = (
    Size(name="wide", width=880, row=27.0, group=34.0, beside=True, ticks=8),
    Size(name="narrow", width=390, row=44.0, group=30.0, beside=False, ticks=4),
)
_TOP, _BOTTOM = 26.0, 44.0


@dataclass(frozen=True, kw_only=True)
class _Frame:
    x: Scale
    size: Size
    top: float
    bottom: float


def draw(chart: "RowChart", size: Size) -> Markup:
    """The chart as one SVG of this size."""
    inner = sum(size.group + size.row * len(group.rows) for group in chart.groups)
    frame = _Frame(x=_scale(chart, size), size=size, top=_TOP, bottom=_TOP + inner)
    parts, at = [], frame.top
    for group in chart.groups:
        parts.append(_heading(group, at, frame))
        at += size.group
        for row in group.rows:
            parts.append(_row(row, at, frame))
            at += size.row
    return tag(
        "svg",
        tag("title", chart.title),
        tag("desc", chart.description),
        _background(chart, frame),
        *parts,
        viewBox=f"0 0 {size.width} {short(frame.bottom + _BOTTOM)}",
        class_=f"drawing {size.name}",
        role="img",
        tabindex=0,
        aria_label=f"{chart.title}. {chart.description}",
    )


def _scale(chart: "RowChart", size: Size) -> Scale:
    every = [row for group in chart.groups for row in group.rows]
    values = [v for row in every for v in (row.point, row.low, row.high, *row.dots) if v is not None]
    values += [] if chart.reference is None else [chart.reference]
    values += list(chart.margin or ())
    low, high = chart.x.limits or limits(values, log=chart.x.log, padding=0.08)
    start, end = 6.0, size.width - 6.0
    if size.beside:
        start = 14.0 + max((text_width(row.label, _FONT) for row in every), default=60.0)
        end = size.width - 14.0 - max((text_width(row.value, _FONT) for row in every), default=60.0)
    return Scale(low=low, high=high, start=start, end=end, log=chart.x.log)


def _background(chart: "RowChart", frame: _Frame) -> Markup:
    x, parts = frame.x, []
    if chart.margin is not None:
        left, right = (x(min(max(edge, x.low), x.high)) for edge in chart.margin)
        parts.append(
            tag("rect", x=left, y=frame.top, width=right - left, height=frame.bottom - frame.top, class_="margin")
        )
    ticks = chart.x.ticks(x, frame.size.ticks)
    parts += [stroke(x(value), frame.top, x(value), frame.bottom, "grid") for value, _ in ticks]
    parts += [words(word, x(v), frame.bottom + 18, anchor="middle", kind="tick") for v, word in spaced(x, ticks)]
    if chart.reference is not None:
        parts.append(stroke(x(chart.reference), frame.top - 4, x(chart.reference), frame.bottom, "reference"))
        for side, anchor, shift in zip(chart.sides, ("end", "start"), (-7.0, 7.0), strict=True):
            parts.append(words(side, x(chart.reference) + shift, frame.top - 9, anchor=anchor, kind="tick"))
    parts.append(stroke(x.start, frame.bottom, x.end, frame.bottom, "axis"))
    parts.append(words(chart.x.title, x.end, frame.bottom + 37, anchor="end", kind="axis-title"))
    return tag("g", *parts, aria_hidden="true")


def _heading(group: "RowGroup", at: float, frame: _Frame) -> Markup:
    note = tag("tspan", group.note, class_="quiet", dx=10) if group.note else ""
    at += frame.size.group - 10
    patch = _behind(0.0, f"{group.title} {group.note}", at)
    return patch + tag("text", group.title, note, x=0, y=at, class_="group")


def _behind(x: float, content: str, baseline: float) -> Markup:
    """A patch of paper, so that lines of the plot do not run through words that stand on it."""
    return tag("rect", x=x, y=baseline - 12, width=text_width(content, _FONT), height=16, class_="behind")


def _row(row: "Row", at: float, frame: _Frame) -> Markup:
    beside, width = frame.size.beside, float(frame.size.width)
    text = at + (frame.size.row / 2 + 4.5 if beside else 14.0)
    middle = at + (frame.size.row / 2 if beside else 29.0)
    parts = [
        *(
            []
            if beside
            else [_behind(0.0, row.label, text), _behind(width - text_width(row.value, _FONT), row.value, text)]
        ),
        words(row.label, 6.0 if beside else 0.0, text, kind="row-label"),
        words(row.value, width, text, anchor="end", kind="row-value"),
        *_marks(row, middle, frame.x),
    ]
    return tag("g", *parts)


def _marks(row: "Row", y: float, x: Scale) -> list[Markup]:
    parts = [shape("circle", x(dot), y, 2.6, row.colour, hollow=True) for dot in row.dots if x.inside(dot)]
    if row.low is not None or row.high is not None:
        parts += _interval(row, y, x)
    if row.point is not None and x.inside(row.point):
        parts.append(shape(row.marker, x(row.point), y, 5.5, row.colour, tip=row.tip))
    return parts


def _interval(row: "Row", y: float, x: Scale) -> list[Markup]:
    """A line between the ends; an arrow where an end is open or off the axis, a bar at the ends of a mere bound."""
    style = f"stroke:{row.colour}"
    low, high = (-math.inf if row.low is None else row.low), (math.inf if row.high is None else row.high)
    left, right = x(min(max(low, x.low), x.high)), x(max(min(high, x.high), x.low))
    kind = "interval" if row.point is not None else "interval open"
    parts = [stroke(left, y, right, y, kind, style)]
    for at, end, way in ((left, low, -1), (right, high, 1)):
        if not x.inside(end):
            parts.append(_tip_of_arrow(at, y, way, style))
        elif row.point is None:
            parts.append(stroke(at, y - 6, at, y + 6, "interval", style))
    return parts


def _tip_of_arrow(at: float, y: float, way: int, style: str) -> Markup:
    d = f"M{short(at - 6 * way)} {short(y - 5)}L{short(at)} {short(y)}L{short(at - 6 * way)} {short(y + 5)}"
    return tag("path", d=d, class_="line solid", style=style)
