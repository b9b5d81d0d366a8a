"""Heat maps: colours in proportion, marks, words where there is room, numbers as a table."""

import re

from windtunnel.report import HeatMap


def chart(values: list[list[float | None]], marked: list[list[bool]] | None = None, columns: int = 2) -> HeatMap:
    words = [[f"{value}" for value in row] for row in values]
    return HeatMap(
        key="k",
        title="t",
        description="d",
        x="depth",
        y="length",
        columns=[f"<{k}>" for k in range(columns)],
        rows=[str(k) for k in range(len(values))],
        values=values,
        words=words,
        tips=words,
        marked=marked or (),
        most=0.5,
    )


def colours(markup: str) -> list[tuple[str, int]]:
    found = re.findall(r"color-mix\(in oklab, var\(--series-(\d)\) (\d+)%", markup.split("drawing narrow")[0])
    return [(series, int(percent)) for series, percent in found]


def test_colours_follow_size_and_sign() -> None:
    assert colours(str(chart([[0.25, -0.5], [None, 2.0]]).html())) == [("1", 50), ("2", 100), ("1", 0), ("1", 100)]


def test_marked_cells_are_framed_and_starred() -> None:
    made = chart([[0.25, -0.5]], [[False, True]])
    assert str(made.html()).count("stroke-width:2") == 2  # wide and narrow
    assert made.table().rows == [("0", "0.25", "-0.5*")]


def test_words_are_escaped_and_left_out_where_there_is_no_room() -> None:
    assert "<0>" not in str(chart([[0.25, -0.5]]).html())
    wide = [[0.123456789] * 40]
    drawing = str(chart(wide, columns=40).html()).split("drawing wide")[1].split("<details")[0]
    assert "0.123456789</text>" not in drawing
