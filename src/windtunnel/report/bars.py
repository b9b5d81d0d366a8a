"""Draws a `BarChart`: sums in rows, each cut into its parts, their totals in words beside (or above) them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from windtunnel.report.marks import stroke, text_width, words
from windtunnel.report.markup import short, tag
from windtunnel.report.plot import spaced
from windtunnel.report.rows import SIZES, Size
from windtunnel.report.scales import Scale

if TYPE_CHECKING:
    from windtunnel.report.charts import Bar, BarChart

_FONT = 13.0
_TOP, _BOTTOM = 26.0, 44.0
_THICK = 15.0

__all__ = ["SIZES", "draw"]


@dataclass(frozen=True, kw_only=True)
class _Frame:
    x: Scale
    size: Size
    bottom: float


def draw(chart: "BarChart", size: Size) -> Markup:
    """The chart as one SVG of this size."""
    frame = _Frame(x=_scale(chart, size), size=size, bottom=_TOP + size.row * len(chart.bars))
    segments = [_segments(chart, index, frame) for index in range(len(chart.names))]
    return tag(
        "svg",
        tag("title", chart.title),
        tag("desc", chart.description),
        _background(chart, frame),
        *segments,
        _guide(chart, frame),
        *(_words(bar, k, frame) for k, bar in enumerate(chart.bars)),
        viewBox=f"0 0 {size.width} {short(frame.bottom + _BOTTOM)}",
        class_=f"drawing {size.name}",
        role="img",
        tabindex=0,
        aria_label=f"{chart.title}. {chart.description}",
    )


def _scale(chart: "BarChart", size: Size) -> Scale:
    longest = max([sum(bar.parts) for bar in chart.bars] + [chart.guide.value if chart.guide is not None else 0.0])
    start, end = 2.0, size.width - 2.0
    if size.beside:
        start = 14.0 + max(text_width(bar.label, _FONT) for bar in chart.bars)
        end = size.width - 14.0 - max(text_width(bar.value, _FONT) for bar in chart.bars)
    return Scale(low=0.0, high=(longest or 1.0) * 1.04, start=start, end=end, log=False)


def _background(chart: "BarChart", frame: _Frame) -> Markup:
    x, ticks = frame.x, chart.x.ticks(frame.x, frame.size.ticks)
    parts = [stroke(x(value), _TOP, x(value), frame.bottom, "grid") for value, _ in ticks]
    parts += [words(word, x(v), frame.bottom + 18, anchor="middle", kind="tick") for v, word in spaced(x, ticks)]
    parts.append(words(chart.x.title, x.end, frame.bottom + 37, anchor="end", kind="axis-title"))
    return tag("g", *parts, aria_hidden="true")


def _segments(chart: "BarChart", index: int, frame: _Frame) -> Markup:
    """One part of every bar, so that the legend can hide it."""
    rects = []
    for k, bar in enumerate(chart.bars):
        if not bar.parts[index]:
            continue
        left, right = frame.x(sum(bar.parts[:index])), frame.x(sum(bar.parts[: index + 1]))
        middle = _middle(k, frame)
        rects.append(
            tag(
                "rect",
                x=left,
                y=middle - _THICK / 2,
                width=max(right - left, 0.6),
                height=_THICK,
                class_="segment",
                style=f"fill:{chart.colours[index]}",
                data_tip=f"{bar.label}\n{chart.names[index]}: {chart.x.form(bar.parts[index])}",
                data_x=short((left + right) / 2),
                data_y=short(middle),
            )
        )
    return tag("g", *rects, data_series=index)


def _middle(k: int, frame: _Frame) -> float:
    return _TOP + frame.size.row * k + (frame.size.row / 2 if frame.size.beside else 29.0)


def _words(bar: "Bar", k: int, frame: _Frame) -> Markup:
    beside = frame.size.beside
    baseline = _middle(k, frame) + (4.5 if beside else -13.0)
    return tag(
        "g",
        words(bar.label, 6.0 if beside else 0.0, baseline, kind="row-label"),
        words(bar.value, float(frame.size.width), baseline, anchor="end", kind="row-value halo"),
    )


def _guide(chart: "BarChart", frame: _Frame) -> Markup:
    if chart.guide is None:
        return Markup("")
    at = frame.x(chart.guide.value)
    return tag(
        "g",
        stroke(at, _TOP - 6, at, frame.bottom, "reference"),
        words(chart.guide.label, at, _TOP - 10, anchor="end", kind="tick"),
    )
