"""One table, three faces: HTML for pages, rich for terminals, Markdown for files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from windtunnel.report.markup import inline, joined, tag


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text (or markup, in pages) under named columns. `numeric` lists the columns that are set to the right.

    `note` is shown under the table; the first column heads its row.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Markup]]
    numeric: Sequence[int] = ()
    note: str = ""

    def html(self) -> Markup:
        """A table that scrolls sideways inside itself where the page is too narrow."""
        head = tag("tr", *(tag("th", name, scope="col", class_=self._side(k)) for k, name in enumerate(self.columns)))
        body = joined([tag("tr", *(self._cell(k, cell) for k, cell in enumerate(row))) for row in self.rows])
        table = tag("table", tag("caption", tag("span", self.caption)), tag("thead", head), tag("tbody", body))
        scroller = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=self.caption)
        return scroller + tag("p", inline(self.note), class_="note") if self.note else scroller

    def rich(self, style_of: Callable[[int, str], str] | None = None, **options: Any) -> Any:
        """A `rich.table.Table`; `style_of(column, cell)` names a cell's style, options go to rich's constructor.

        Numbers are never broken; where the terminal is too narrow, words fold.
        """
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(**{"box": box.SIMPLE_HEAD, "padding": (0, 0), "title_justify": "left", **options})
        for k, name in enumerate(self.columns):
            number = k in self.numeric
            table.add_column(Text(name), justify="right" if number else "left", no_wrap=number, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(str(c), style=style_of(k, str(c)) if style_of else "") for k, c in enumerate(row)))
        return table

    def markdown(self) -> str:
        """A pipe table; pipes and line ends inside cells are made harmless."""
        rule = ["---:" if k in self.numeric else "---" for k in range(len(self.columns))]
        lines = [[_pipe(c) for c in self.columns], rule, *([_pipe(cell) for cell in row] for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def _side(self, column: int) -> str | None:
        return "number" if column in self.numeric else None

    def _cell(self, column: int, cell: str | Markup) -> Markup:
        if column == 0:
            return tag("th", cell, scope="row", class_=self._side(column))
        return tag("td", cell, class_=self._side(column))


def _pipe(cell: str | Markup) -> str:
    return " ".join(str(cell).split()).replace("|", "\\|")
