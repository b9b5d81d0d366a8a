"""Draws a `HeatMap`: one cell for each row and column, its colour as deep as its value, its value in words inside."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from windtunnel.report.marks import text_width, words
from windtunnel.report.markup import short, tag

if TYPE_CHECKING:
    from windtunnel.report.charts import HeatMap

_FONT = 13.0
_TOP, _BOTTOM = 30.0, 26.0
_GAP = 2.0
_DARK = 55  # percent of a colour beyond which words on it are of paper


@dataclass(frozen=True, kw_only=True)
class Size:
    """How wide a drawing is, and how high its rows are."""

    name: str
    width: int
    row: float
    widest: float


SIZES = (
    Size(name="wide", width=880, row=32.0, widest=96.0),
    Size(name="narrow", width=390, row=28.0, widest=64.0),
)


def draw(chart: "HeatMap", size: Size) -> Markup:
    """The map as one SVG of this size."""
    left = 14.0 + max(text_width(label, _FONT) for label in (*chart.rows, chart.y))
    wide = min(size.widest, (size.width - left) / len(chart.columns))
    bottom = _TOP + size.row * len(chart.rows)
    cells = [
        _cell(chart, row, column, left + wide * column, _TOP + size.row * row, wide, size.row)
        for row in range(len(chart.rows))
        for column in range(len(chart.columns))
    ]
    return tag(
        "svg",
        tag("title", chart.title),
        tag("desc", chart.description),
        tag("g", *cells),
        words(chart.y, left - 8, _TOP - 10, anchor="end", kind="axis-title"),
        *(
            words(label, left - 8, _TOP + size.row * (k + 0.5) + 4.5, anchor="end", kind="row-label")
            for k, label in enumerate(chart.rows)
        ),
        *_column_words(chart, left, wide),
        words(chart.x, left, bottom + 19, kind="axis-title"),
        viewBox=f"0 0 {size.width} {short(bottom + _BOTTOM)}",
        class_=f"drawing {size.name}",
        role="img",
        tabindex=0,
        aria_label=f"{chart.title}. {chart.description}",
    )


def _column_words(chart: "HeatMap", left: float, wide: float) -> list[Markup]:
    """As many of the columns' names as have room."""
    longest = max(text_width(label, _FONT) for label in chart.columns) + 4
    step = max(1, -(-int(longest) // max(1, int(wide))))
    return [
        words(label, left + wide * (k + 0.5), _TOP - 10, anchor="middle", kind="tick")
        for k, label in enumerate(chart.columns)
        if k % step == 0
    ]


def _cell(chart: "HeatMap", row: int, column: int, x: float, y: float, wide: float, high: float) -> Markup:
    value, word = chart.values[row][column], chart.words[row][column]
    percent = 0 if value is None else depth(value, chart.most)
    shade = "var(--series-2)" if value is not None and value < 0 else "var(--series-1)"
    marked = bool(chart.marked) and chart.marked[row][column]
    paper = "var(--paper)" if percent > _DARK else "var(--ink)"
    parts = [
        tag(
            "rect",
            x=x + _GAP / 2,
            y=y + _GAP / 2,
            width=wide - _GAP,
            height=high - _GAP,
            rx=3,
            style=f"fill:color-mix(in oklab, {shade} {percent}%, var(--raised))"
            + (";stroke:var(--ink);stroke-width:2" if marked else ""),
            data_tip=chart.tips[row][column],
            data_x=short(x + wide / 2),
            data_y=short(y + high / 2),
        )
    ]
    if text_width(word, _FONT) <= wide - _GAP:
        middle, baseline = x + wide / 2, y + high / 2 + 4.5
        parts.append(words(word, middle, baseline, anchor="middle", style=f"fill:{paper}"))
    return tag("g", *parts)


def depth(value: float, most: float) -> int:
    """Percent of the full colour: in proportion to the value's size, at most 100."""
    return round(100 * min(abs(value) / most, 1.0))
