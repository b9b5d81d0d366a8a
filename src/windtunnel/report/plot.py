"""Draws a `Chart`: axes, grid, series with bands and whiskers, labels that do not cover each other."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from windtunnel.report.marks import shape, stroke, text_width, words
from windtunnel.report.markup import joined, path, short, tag
from windtunnel.report.scales import Scale, limits

if TYPE_CHECKING:
    from windtunnel.report.charts import Chart, Series

_FONT = 13.0
_HITS = 24
_Y_TICKS = 7


@dataclass(frozen=True, kw_only=True)
class Size:
    """A drawing's own size; the page scales it a little, style sheets show one of them."""

    name: str
    width: int
    height: int
    ticks: int
    labels: bool


SIZES = (
    Size(name="wide", width=880, height=430, ticks=8, labels=True),
    Size(name="narrow", width=390, height=340, ticks=4, labels=False),
)


@dataclass(frozen=True, kw_only=True)
class _Frame:
    x: Scale
    y: Scale
    size: Size


def draw(chart: "Chart", size: Size) -> Markup:
    """The chart as one SVG of this size."""
    frame = _frame(chart, size)
    clip = f"{chart.key}-{size.name}-clip"
    area = tag(
        "rect", x=frame.x.start, y=frame.y.end, width=frame.x.end - frame.x.start, height=frame.y.start - frame.y.end
    )
    drawn = [
        tag("g", _series(one, frame, clip), data_series=series_index(chart.series, one.name)) for one in chart.series
    ]
    return tag(
        "svg",
        tag("title", chart.title),
        tag("desc", chart.description),
        tag("defs", tag("clipPath", area, id=clip)),
        _grid(chart, frame),
        _guides(chart, frame),
        joined(drawn),
        _labels(chart, frame),
        viewBox=f"0 0 {size.width} {size.height}",
        class_=f"drawing {size.name}",
        role="img",
        tabindex=0,
        aria_label=f"{chart.title}. {chart.description}",
    )


def series_index(series: Sequence["Series"], name: str) -> int:
    """The number by which legend and drawing know a name."""
    return list(dict.fromkeys(one.name for one in series)).index(name)


def swatch(series: "Series") -> Markup:
    """The legend's small drawing of a series."""
    parts = []
    if series.line:
        parts.append(stroke(1, 7, 27, 7, f"line {series.line}", f"stroke:{series.colour}"))
    elif series.low and not series.marker:
        parts.append(tag("rect", x=1, y=1, width=26, height=12, class_="band", style=f"fill:{series.colour}"))
    if series.marker:
        parts.append(shape(series.marker, 14, 7, 4, series.colour, hollow=series.hollow))
    return tag("svg", *parts, viewBox="0 0 28 14", class_="swatch", aria_hidden="true")


def _frame(chart: "Chart", size: Size) -> _Frame:
    across = [v for s in chart.series for v in (*s.x, *s.left, *s.right) if v is not None]
    up = [*(v for s in chart.series for v in s.y), *_ends(chart)]
    x_low, x_high = chart.x.limits or limits(across, log=chart.x.log, padding=0.04)
    y_low, y_high = chart.y.limits or limits(up, log=chart.y.log, padding=0.07)
    y = Scale(low=y_low, high=y_high, start=size.height - 46.0, end=30.0, log=chart.y.log)
    widest = max((text_width(word, _FONT) for _, word in chart.y.ticks(y, _Y_TICKS)), default=0.0)
    beside = (
        max((text_width(label, _FONT) for s in chart.series for label in s.labels), default=0.0) if size.labels else 0.0
    )
    x = Scale(low=x_low, high=x_high, start=widest + 12.0, end=size.width - 14.0 - beside, log=chart.x.log)
    return _Frame(x=x, y=y, size=size)


def _ends(chart: "Chart") -> list[float]:
    """Ends of intervals that the y axis makes room for.

    On a logarithmic one an interval can be many powers of ten wide, of two rounds say: beyond as much again as the
    points take, and a power of ten at least, it runs out of the picture.
    """
    ends = [v for s in chart.series for v in (*s.low, *s.high) if v is not None]
    points = [v for s in chart.series for v in s.y if math.isfinite(v) and v > 0]
    if not chart.y.log or not points:
        return ends
    low, high = min(points), max(points)
    room = max(10.0, high / low)
    return [min(max(end, low / room), high * room) for end in ends]


def _grid(chart: "Chart", frame: _Frame) -> Markup:
    x, y, bottom = frame.x, frame.y, frame.y.start
    parts = [words(chart.y.title, 0.0, 13.0, kind="axis-title")]
    for value, word in chart.y.ticks(y, _Y_TICKS):
        parts.append(stroke(x.start, y(value), x.end, y(value), "grid"))
        parts.append(words(word, x.start - 7, y(value) + 4.5, anchor="end", kind="tick"))
    for value, word in spaced(x, chart.x.ticks(x, frame.size.ticks)):
        parts.append(stroke(x(value), bottom, x(value), bottom + 5, "axis"))
        parts.append(words(word, x(value), bottom + 20, anchor="middle", kind="tick"))
    parts.append(stroke(x.start, bottom, x.end, bottom, "axis"))
    parts.append(words(chart.x.title, x.end, frame.size.height - 5.0, anchor="end", kind="axis-title"))
    return tag("g", *parts, aria_hidden="true")


def spaced(x: Scale, ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The ticks whose words do not run into those before."""
    kept: list[tuple[float, str]] = []
    edge = float("-inf")
    for value, word in ticks:
        half = text_width(word, _FONT) / 2
        if x(value) - half > edge + 6:
            kept.append((value, word))
            edge = x(value) + half
    return kept


def _guides(chart: "Chart", frame: _Frame) -> Markup:
    x, y = frame.x, frame.y
    parts = []
    for guide in chart.guides:
        if guide.axis == "x" and x.inside(guide.value):
            at = x(guide.value)
            parts += [stroke(at, y.end, at, y.start, "guide"), words(guide.label, at + 5, y.end + 9, kind="tick")]
        elif guide.axis == "y" and y.inside(guide.value):
            at = y(guide.value)
            place = _guide_place(chart, frame, at, text_width(guide.label, _FONT))
            parts += [stroke(x.start, at, x.end, at, "guide"), words(guide.label, *place, kind="tick halo")]
    return tag("g", *parts, aria_hidden="true")


def _guide_place(chart: "Chart", frame: _Frame, at: float, width: float) -> tuple[float, float]:
    """Where the word of a level line covers no marker: left, right, then the middle; above the line before below."""
    spots = [(frame.x(a), frame.y(b)) for s in chart.series if s.marker for a, b in zip(s.x, s.y, strict=True)]
    lefts = (frame.x.start + 6, frame.x.end - width, (frame.x.start + frame.x.end - width) / 2)
    boxes = [(a, at + dy, a + width, at + dy + 16) for dy in (-19, 3) for a in lefts]
    free = [
        box for box in boxes if not any(box[0] - 8 < a < box[2] + 8 and box[1] - 8 < b < box[3] + 8 for a, b in spots)
    ]
    box = (free or boxes)[0]
    return box[0], box[3] - 2


def _series(series: "Series", frame: _Frame, clip: str) -> Markup:
    places = [(frame.x(a), frame.y(b)) for a, b in zip(series.x, series.y, strict=True)]
    parts = []
    if series.low and not series.marker:
        parts.append(_band(series, frame))
    if series.line:
        corners = _steps(places) if series.line == "step" else places
        kind = f"line {series.line}"
        parts.append(tag("path", d=path(corners), class_=kind, style=f"stroke:{series.colour}"))
    if series.marker:
        parts += _whiskers(series, frame)
    clipped = tag("g", *parts, clip_path=f"url(#{clip})")
    return clipped + joined(_points(series, places, frame))


def _points(series: "Series", places: list[tuple[float, float]], frame: _Frame) -> list[Markup]:
    """Markers, or unseen points that a pointer can find on a plain line."""
    tips = series.tips or [""] * len(places)
    inside = [k for k in range(len(places)) if frame.x.inside(series.x[k]) and frame.y.inside(series.y[k])]
    if series.marker:
        size = 5.0 if series.marker not in ("ring", "cross") else 4.5
        return [
            shape(series.marker, *places[k], size, series.colour, hollow=series.hollow, tip=tips[k]) for k in inside
        ]
    every = max(1, len(inside) // _HITS)
    hits = []
    for k in inside[::every]:
        if tips[k]:
            x, y = places[k]
            hits.append(
                tag("circle", cx=x, cy=y, r=3, class_="hit", data_tip=tips[k], data_x=short(x), data_y=short(y))
            )
    return hits


def _band(series: "Series", frame: _Frame) -> Markup:
    known = [
        (a, b, c) for a, b, c in zip(series.x, series.low, series.high, strict=True) if b is not None and c is not None
    ]
    around = [(frame.x(a), frame.y(c)) for a, _, c in known] + [(frame.x(a), frame.y(b)) for a, b, _ in reversed(known)]
    return tag("path", d=path(around) + "Z", class_="band", style=f"fill:{series.colour}")


def _whiskers(series: "Series", frame: _Frame) -> list[Markup]:
    style = f"stroke:{series.colour}"
    parts = []
    for k, (a, b) in enumerate(zip(series.x, series.y, strict=True)):
        low, high = _bounds(series.low, series.high, k)
        if low is not None and high is not None:
            parts.append(stroke(frame.x(a), frame.y(low), frame.x(a), frame.y(high), "whisker", style))
        left, right = _bounds(series.left, series.right, k)
        if left is not None and right is not None:
            parts.append(stroke(frame.x(left), frame.y(b), frame.x(right), frame.y(b), "whisker", style))
    return parts


def _bounds(low: Sequence[float | None], high: Sequence[float | None], k: int) -> tuple[float | None, float | None]:
    return (low[k] if k < len(low) else None, high[k] if k < len(high) else None)


def _steps(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase: across first, then up or down."""
    corners = places[:1]
    for before, after in itertools.pairwise(places):
        corners += [(after[0], before[1]), after]
    return corners


def _labels(chart: "Chart", frame: _Frame) -> Markup:
    """Names beside points, each at the first of four sides where it covers neither a point nor another name."""
    if not frame.size.labels:
        return Markup("")
    spots = [(frame.x(a), frame.y(b)) for s in chart.series if s.marker for a, b in zip(s.x, s.y, strict=True)]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    drawn = []
    for one in chart.series:
        for a, b, label in zip(one.x, one.y, one.labels, strict=False):
            if label and frame.x.inside(a) and frame.y.inside(b):
                box = _free_box(frame, frame.x(a), frame.y(b), text_width(label, _FONT), taken)
                taken.append(box)
                drawn.append(words(label, box[0], box[3] - 4, kind="label", style=f"fill:{one.colour}"))
    return tag("g", *drawn, aria_hidden="true")


_Box = tuple[float, float, float, float]


def _free_box(frame: _Frame, x: float, y: float, width: float, taken: list[_Box]) -> _Box:
    candidates = [
        (x + 10 if right else x - 10 - width, y + dy - 8)
        for right in (True, False)
        for dy in (0, -9, 9, -17, 17, -26, 26)
    ]
    boxes = [(a, b, a + width, b + 16) for a, b in candidates]
    inside = [
        c
        for c in boxes
        if c[0] >= frame.x.start and c[2] <= frame.size.width and c[1] >= frame.y.end and c[3] <= frame.y.start
    ]
    free = [c for c in inside if not any(_overlap(c, other) for other in taken)]
    return (free or inside or boxes)[0]


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
