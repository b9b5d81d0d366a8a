"""Curves of estimates, one for each arm."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from windtunnel.evaluation.estimates import Figures
from windtunnel.report import Axis, Chart, Guide, Series, colour, figures, marker

Line = Literal["solid", "dashed", "dotted"]


class Point(NamedTuple):
    """An estimate over x; tip: what a reader sees there."""

    x: float
    estimate: Figures
    tip: str


def curve(name: str, points: Iterable[Point], index: int, line: Line = "solid") -> Series:
    """A line with its whiskers in the index-th colour; dashed and dotted ones have hollow markers."""
    listed = [point for point in points if point.estimate["value"] is not None]
    return Series(
        name=name,
        x=[point.x for point in listed],
        y=[point.estimate["value"] for point in listed],
        low=[point.estimate["low"] for point in listed],
        high=[point.estimate["high"] for point in listed],
        colour=colour(index),
        marker=marker(index),
        line=line,
        hollow=line != "solid",
        tips=[point.tip for point in listed],
    )


def chart(
    key: str,
    title: str,
    description: str,
    axes: tuple[str, str],
    series: Sequence[Series],
    guides: Sequence[Guide] = (),
    **options: Any,
) -> Chart:
    """Curves over powers of two. axes: the titles of x and y; options: of the y axis."""
    return Chart(
        key=key,
        title=title,
        description=description,
        x=Axis(title=axes[0], log=True, base=2, form=figures.counted),
        y=Axis(title=axes[1], **options),
        series=series,
        guides=guides,
    )
