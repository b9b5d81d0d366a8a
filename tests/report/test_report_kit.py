"""The kit: numbers as text, axes, tables with three faces, pages."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from windtunnel.report import Axis, Chart, Prose, Raw, Row, RowChart, RowGroup, Section, Series, Table, figures, page
from windtunnel.report.markup import inline, link, tag
from windtunnel.report.page import write_page
from windtunnel.report.scales import Scale, decimals, limits


@pytest.mark.parametrize(
    ("speedup", "said"),
    [(1.2, "17 % saved"), (0.9, "11 % more"), (2.0, "50 % saved"), (1.0, "0 % saved"), (None, figures.MISSING)],
)
def test_percent_saved_is_one_minus_one_over_s(speedup: float | None, said: str) -> None:
    assert figures.saving(speedup).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (999, "999"),
        (147_456, "147k"),
        (614_400, "614k"),
        (999_600, "1M"),
        (1.354e6, "1.35M"),
        (2.5e15, "2.5P"),
    ],
)
def test_counts_have_three_digits(value: float, said: str) -> None:
    assert figures.counted(value) == said


def test_numbers_that_are_none_or_not_finite_are_missing() -> None:
    for write in (figures.fixed, figures.signed, figures.ratio, figures.counted, figures.byte_count, figures.duration):
        for value in (None, math.nan, math.inf):
            assert write(value) == figures.MISSING


def test_small_differences_keep_no_minus_zero() -> None:
    assert figures.signed(-0.0001) == "+0.000"
    assert figures.signed(-0.051) == "−0.051"


@given(st.floats(1e-9, 1e9), st.floats(1.01, 1e9), st.integers(3, 9))
def test_log_ticks_lie_inside_and_are_few(low: float, factor: float, most: int) -> None:
    ticks = Scale(low=low, high=low * factor, start=0, end=1, log=True).ticks(most)
    assert len(ticks) <= most + 1
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-6) <= tick <= low * factor * (1 + 1e-6) for tick in ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 9))
def test_linear_ticks_lie_inside_and_lose_no_digits(low: float, width: float, most: int) -> None:
    ticks = Scale(low=low, high=low + width, start=0, end=1).ticks(most)
    assert 1 <= len(ticks) <= most + 1
    digits = decimals(ticks)
    assert len({f"{tick:.{digits}f}" for tick in ticks}) == len(ticks)


def test_scale_maps_ends_and_middle() -> None:
    scale = Scale(low=1, high=100, start=0, end=10, log=True)
    assert [scale(v) for v in (1, 10, 100)] == pytest.approx([0, 5, 10])
    assert Scale(low=0, high=4, start=10, end=0)(1) == pytest.approx(7.5)
    assert scale(0) == 0
    assert Scale(low=100, high=1600, start=0, end=1, log=True).ticks(8, 2) == [128, 256, 512, 1024]


def test_limits_hold_everything_even_one_value() -> None:
    assert limits([]) == (0.0, 1.0)
    low, high = limits([3.0, 3.0])
    assert low < 3.0 < high
    low, high = limits([-1.0, 10.0], log=True)
    assert 0 < low < 10 < high


def test_table_has_three_faces() -> None:
    table = Table(caption="C", columns=("a", "b"), rows=[("x|y", "<1>"), ("z", "2\n3")], numeric=(1,))
    html = table.html()
    assert '<th scope="row">x|y</th><td class="number">&lt;1&gt;</td>' in html
    assert "<caption><span>C</span></caption>" in html
    assert table.markdown() == "| a | b |\n| --- | ---: |\n| x\\|y | <1> |\n| z | 2 3 |\n"
    assert table.rich().row_count == 2


def test_tags_escape_text_and_attributes() -> None:
    assert tag("a", "<b>", title='"x"', class_="c", hidden=True, id=None) == (
        '<a title="&#34;x&#34;" class="c" hidden="">&lt;b&gt;</a>'
    )
    assert tag("i", Markup("<b></b>")) == "<i><b></b></i>"
    assert inline("a `<b>` c") == "a <code>&lt;b&gt;</code> c"
    assert inline("one ` alone") == "one ` alone"
    assert link("x", "javascript:alert(1)") == "x"


def _chart(key: str = "c") -> Chart:
    series = [Series(name=name, x=[1, 10], y=[2, 3], low=[1, None], high=[3, None], marker="circle") for name in "ab"]
    return Chart(key=key, title="T", description="D", x=Axis(title="x", log=True), y=Axis(title="y"), series=series)


def test_chart_is_drawn_twice_and_told_in_numbers() -> None:
    html = _chart().html()
    assert html.count("<svg") == 2 + 2
    assert html.count('role="img"') == 2
    assert 'aria-label="T. D"' in html
    assert "[1, 3]" in html
    assert html == _chart().html()


def test_wide_intervals_run_out_of_a_logarithmic_axis() -> None:
    """Two rounds can be 24 powers of ten apart; the points are what is to be seen. The numbers still tell all of it."""
    series = [Series(name="a", x=[1, 10], y=[2, 3], low=[1e-12, 2], high=[1e12, 4], marker="circle")]
    axes = {"x": Axis(title="x"), "y": Axis(title="y", log=True)}
    drawn = Chart(key="c", title="T", description="D", series=series, **axes).html()
    words = set(re.findall(r'class="tick"[^>]*>([^<]+)<', drawn.split("<details")[0]))
    assert {"1", "10"} <= words
    assert not any("e" in word or word == "0" for word in words)
    assert "1e+12" in drawn.split("<details")[1]


def test_charts_without_points_do_not_fail() -> None:
    empty = Chart(key="e", title="T", description="", x=Axis(title="x", log=True), y=Axis(title="y"), series=[])
    assert "<svg" in empty.html()
    rows = RowChart(key="r", title="T", description="", x=Axis(title="x"), groups=[RowGroup(title="g", rows=[])])
    assert "<svg" in rows.html()


def test_open_intervals_end_in_arrows() -> None:
    def arrows(low: float | None, high: float | None) -> int:
        row = Row(label="l", value="v", low=low, high=high)
        chart = RowChart(
            key="r",
            title="T",
            description="",
            x=Axis(title="x", limits=(0, 10)),
            groups=[RowGroup(title="g", rows=[row])],
        )
        return chart.html().count('class="line solid"') // 2

    assert arrows(2, 5) == 0
    assert arrows(None, 5) == arrows(2, None) == arrows(2, 50) == 1


def test_page_numbers_nothing_by_chance_and_wants_unique_keys() -> None:
    sections = [Section(key=key, title=f"<{key}>", parts=[Prose(["a & b"]), Raw(Markup("<hr>"))]) for key in ("a", "b")]
    text = page("A <page>", sections)
    assert "<title>A &lt;page&gt;</title>" in text
    assert "&lt;a&gt;" in text
    assert "a &amp; b" in text
    assert text == page("A <page>", sections)
    with pytest.raises(ValueError, match="unique"):
        page("A", [sections[0], sections[0]])


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = write_page(tmp_path / "deep" / "p.html", "text")
    assert target.read_text() == "text"
    with pytest.raises(UnicodeEncodeError):
        write_page(target, "\ud800")
    assert target.read_text() == "text"
    assert [entry.name for entry in target.parent.iterdir()] == ["p.html"]
