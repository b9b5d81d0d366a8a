"""What a verb prints: words and tables for people, or one JSON document for programs."""

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_COLUMNS = 110


def write_json(value: Any) -> None:
    """One JSON document on stdout; what is not finite becomes null."""
    sys.stdout.write(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")
    sys.stdout.flush()


def console(*, stderr: bool = False) -> "Console":
    """A console; where nothing is known of the reader's width, as in a pipe, lines may be 110 columns long."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made = Console(stderr=stderr, highlight=False, width=_PIPE_COLUMNS)
    return made


class Screen:
    """Where a verb's words go: stdout, or stderr where stdout is kept for JSON."""

    def __init__(self, as_json: bool, silent: bool = False) -> None:
        self.as_json, self.silent = as_json, silent
        self._console: Console | None = None

    def say(self, *things: Any, style: str | None = None, whole: bool = False) -> None:
        """Print text (taken literally, no markup) or renderables; a `whole` line is not broken (paths)."""
        if self.silent:
            return
        if self._console is None:
            self._console = console(stderr=self.as_json)
        self._console.print(*things, style=style, markup=False, soft_wrap=whole)

    def finish(self, result: dict[str, Any], *things: Any) -> None:
        """The outcome: `result` as JSON, or `things` for people."""
        if self.silent:
            return
        if self.as_json:
            write_json(result)
        elif things:
            self.say(*things)


def table(
    columns: list[str],
    rows: list[list[str]],
    numeric: tuple[int, ...] = (),
    whole: tuple[int, ...] = (),
    **options: Any,
) -> Any:
    """A table for people; `numeric` lists the columns that are set to the right, `whole` those never broken."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", **options)
    for index, name in enumerate(columns):
        side: Any = "right" if index in numeric else "left"
        drawn.add_column(Text(name), justify=side, overflow="fold", no_wrap=index in whole)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def facts(lines: dict[str, str]) -> Any:
    """Names and what is to be said of each, aligned."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 2))
    for name, text in lines.items():
        drawn.add_row(Text(name, style="bold"), Text(text))
    return drawn


def finite(value: Any) -> Any:
    """The value as JSON can hold it: what is not finite becomes None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
