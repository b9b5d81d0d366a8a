"""What a chart says, as values; `plot` and `rows` draw them.

A chart is drawn twice, for wide and for narrow pages, so that its text keeps its size; style sheets choose. The drawing
is SVG made here: it shows without scripts, prints, follows the page's colours, and the same chart gives the same bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from windtunnel.report import bars, cells, figures, plot, rows
from windtunnel.report.markup import joined, tag
from windtunnel.report.scales import Scale, decimals
from windtunnel.report.tables import Table

MARKERS = ("circle", "square", "diamond", "triangle", "down", "plus", "hexagon", "star")
COLOURS = 8


def colour(index: int) -> str:
    """The page's colour for the index-th thing; chosen to be told apart by colour-blind readers, in light and dark."""
    return f"var(--series-{index % COLOURS})"


def marker(index: int) -> str:
    """The marker for the index-th thing, so that colour is never the only difference."""
    return MARKERS[index % len(MARKERS)]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: its title with the unit, linear or log, how its values are written, and limits if not from the data.

    On a linear axis `form` writes values in tables and ticks take the decimals they need (`signed`: with a plus too).
    `places` are ticks set by hand; `base` 2 puts a log axis's ticks on powers of two.
    """

    title: str
    log: bool = False
    form: Callable[[float], str] = figures.plain
    limits: tuple[float, float] | None = None
    signed: bool = False
    base: int = 10
    places: Sequence[float] = ()

    def ticks(self, scale: Scale, most: int) -> list[tuple[float, str]]:
        """Tick values with their words, at most `most`."""
        values = [v for v in self.places if scale.inside(v)] or scale.ticks(most, self.base)
        if self.log or self.places:
            return [(v, self.form(v)) for v in values]
        digits = decimals(values)
        return [(v, figures.signed(v, digits) if self.signed and v else figures.fixed(v, digits)) for v in values]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together. Intervals are drawn as whiskers, or as a band where there are no markers.

    `low`/`high` bound y and `left`/`right` bound x, one entry a point (None: not known). `tips` is what a reader sees
    at a point; `labels` are drawn beside the points. Series of one `name` share one entry of the legend.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = "var(--ink)"
    marker: str | None = None
    line: Literal["solid", "dashed", "dotted", "faint", "step"] | None = None
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    left: Sequence[float | None] = ()
    right: Sequence[float | None] = ()
    tips: Sequence[str] = ()
    labels: Sequence[str] = ()
    hollow: bool = False
    listed: bool = True


@dataclass(frozen=True, kw_only=True)
class Guide:
    """A reference line across the plot, with a word beside it."""

    axis: Literal["x", "y"]
    value: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Series over two axes. `key` is unique in the page; `description` is what a screen reader hears."""

    key: str
    title: str
    description: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    guides: Sequence[Guide] = ()
    note: str = ""

    def html(self) -> Markup:
        """The figure: title, legend, drawings, note, and its numbers as a table."""
        drawings = [plot.draw(self, size) for size in plot.SIZES]
        return _figure(self.key, self.title, self.note, _legend(self.series), drawings, self.table())

    def table(self) -> Table:
        """The points that carry a marker, as rows."""
        listed = [s for s in self.series if s.listed and s.marker]
        lines = [_point_row(self, s, k) for s in listed for k in range(len(s.x))]
        columns = ("series", self.x.title, self.y.title, "interval")
        return Table(caption=f"Numbers of: {self.title}", columns=columns, rows=lines, numeric=(1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a row chart: an interval with its point, single dots, or only words where nothing could be estimated.

    An interval whose `low` or `high` is None is open on that side; without a `point` the ends are drawn as bounds.
    """

    label: str
    value: str
    point: float | None = None
    low: float | None = None
    high: float | None = None
    dots: Sequence[float] = ()
    tip: str = ""
    colour: str = "var(--ink)"
    marker: str = "circle"


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Rows under one heading."""

    title: str
    rows: Sequence[Row]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class RowChart:
    """Intervals in rows over one axis (a forest plot), with a reference line and a band that counts as nothing."""

    key: str
    title: str
    description: str
    x: Axis
    groups: Sequence[RowGroup]
    reference: float | None = None
    margin: tuple[float, float] | None = None
    sides: tuple[str, str] = ("", "")
    note: str = ""

    def html(self) -> Markup:
        """The figure: title, drawings, note, and its numbers as a table."""
        drawings = [rows.draw(self, size) for size in rows.SIZES]
        return _figure(self.key, self.title, self.note, Markup(""), drawings, self.table())

    def table(self) -> Table:
        """Every row, in words."""
        lines = [(group.title, row.label, row.value) for group in self.groups for row in group.rows]
        return Table(caption=f"Numbers of: {self.title}", columns=("group", "measure", "value"), rows=lines)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One sum of a bar chart: what it is, its total in words, and its parts in the chart's order (0: it has none)."""

    label: str
    value: str
    parts: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """Sums in rows, cut into named parts, over an axis that begins at 0; a guide marks a limit."""

    key: str
    title: str
    description: str
    x: Axis
    names: Sequence[str]
    bars: Sequence[Bar]
    guide: Guide | None = None
    note: str = ""

    @property
    def colours(self) -> list[str]:
        """One a part."""
        return [colour(index) for index in range(len(self.names))]

    def html(self) -> Markup:
        """The figure: title, legend, drawings, note, and its numbers as a table."""
        named = zip(self.names, self.colours, strict=True)
        legend = _legend([Series(name=name, x=(), y=(), colour=shade, marker="square") for name, shade in named])
        drawings = [bars.draw(self, size) for size in bars.SIZES]
        return _figure(self.key, self.title, self.note, legend, drawings, self.table())

    def table(self) -> Table:
        """Every part of every bar."""
        lines = [(bar.label, *(self.x.form(part) for part in bar.parts), bar.value) for bar in self.bars]
        columns = ("", *self.names, "total")
        return Table(caption=f"Numbers of: {self.title}", columns=columns, rows=lines, numeric=range(1, len(columns)))


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """A value for each row and column. The colour is full at +-`most`; values below 0 have another one.

    `words` stand in the cells, `tips` are what a reader sees at one, `marked` cells are framed. A value of None has no
    colour.
    """

    key: str
    title: str
    description: str
    x: str
    y: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float | None]]
    words: Sequence[Sequence[str]]
    tips: Sequence[Sequence[str]]
    marked: Sequence[Sequence[bool]] = ()
    most: float = 1.0
    note: str = ""

    def html(self) -> Markup:
        """The figure: title, drawings, note, and its numbers as a table."""
        drawings = [cells.draw(self, size) for size in cells.SIZES]
        return _figure(self.key, self.title, self.note, Markup(""), drawings, self.table())

    def table(self) -> Table:
        """The words of every cell; marked ones with a star."""
        lines = [
            (name, *(word + "*" * bool(self.marked and self.marked[k][j]) for j, word in enumerate(self.words[k])))
            for k, name in enumerate(self.rows)
        ]
        columns = (self.y, *self.columns)
        return Table(caption=f"Numbers of: {self.title}", columns=columns, rows=lines, numeric=range(1, len(columns)))


def _point_row(chart: Chart, series: Series, k: int) -> tuple[str, ...]:
    low = series.low[k] if k < len(series.low) else None
    high = series.high[k] if k < len(series.high) else None
    bounds = figures.MISSING if low is None or high is None else f"[{chart.y.form(low)}, {chart.y.form(high)}]"
    return (series.name, chart.x.form(series.x[k]), chart.y.form(series.y[k]), bounds)


def _figure(key: str, title: str, note: str, legend: Markup, drawings: Sequence[Markup], table: Table) -> Markup:
    parts = [tag("figcaption", title), legend, *drawings]
    if note:
        parts.append(tag("p", note, class_="note"))
    if table.rows:
        parts.append(tag("details", tag("summary", "Numbers of this chart"), table.html(), class_="numbers"))
    return tag("figure", *parts, class_="chart", id=key)


def _legend(series: Sequence[Series]) -> Markup:
    """One button a name; pressing it hides and shows the name's series."""
    first: dict[str, Series] = {}
    for one in series:
        if one.name not in first or (one.marker and not first[one.name].marker):
            first[one.name] = one
    if len(first) < 2:
        return Markup("")
    entries = [
        tag(
            "button",
            plot.swatch(one),
            tag("span", name),
            type="button",
            class_="key",
            aria_pressed="true",
            data_series=plot.series_index(series, name),
        )
        for name, one in first.items()
    ]
    return tag("div", joined(entries), class_="legend", role="group", aria_label="Show or hide series")
