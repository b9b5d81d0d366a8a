"""Bars: as long as their parts, and nothing of theirs is markup."""

import re

from windtunnel.report import Axis, Bar, BarChart, Guide


def chart(*bars: Bar, guide: Guide | None = None) -> str:
    names = ("first <part>", "second")
    made = BarChart(key="k", title="t", description="d", x=Axis(title="GiB"), names=names, bars=bars, guide=guide)
    return str(made.html())


def widths(markup: str) -> list[float]:
    wide = re.search(r'<svg[^>]*class="drawing wide".*?</svg>', markup, re.DOTALL)
    assert wide is not None
    found = re.findall(r"<rect [^>]*>", wide[0])
    return [float(re.search(r' width="([\d.]+)"', rect)[1]) for rect in found if "segment" in rect]  # type: ignore[index]


def test_lengths_are_in_proportion_and_nothing_is_drawn_for_nothing() -> None:
    lengths = widths(chart(Bar(label="a", value="3", parts=(1.0, 2.0)), Bar(label="b", value="4", parts=(4.0, 0.0))))
    assert len(lengths) == 3
    one, four, two = lengths  # all first parts, then all second ones
    assert abs(two / one - 2) < 0.01
    assert abs(four / one - 4) < 0.01


def test_a_limit_is_on_the_axis_even_beyond_the_bars() -> None:
    short = widths(chart(Bar(label="a", value="1", parts=(1.0, 1.0)), guide=Guide(axis="x", value=20.0, label="limit")))
    long = widths(chart(Bar(label="a", value="1", parts=(1.0, 1.0))))
    assert abs(long[0] / short[0] - 10) < 0.1


def test_words_are_escaped_and_the_numbers_are_a_table() -> None:
    markup = chart(Bar(label="<b>", value="3", parts=(1.0, 2.0)))
    assert "<b>" not in markup
    assert "first <part>" not in markup
    assert "<td" in markup
