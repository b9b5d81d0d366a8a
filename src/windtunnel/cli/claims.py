"""`windtunnel claims`: published results beside ours, from filed results."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import Json
from windtunnel.cli.screen import Screen
from windtunnel.errors import InputError

_EXAMPLE = """Examples:

windtunnel claims

windtunnel claims --results my-results/ --write my-claims.md

Results are the results.json of studies and the JSON of benchmarks and fits, under any names.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("claims", epilog=_EXAMPLE)(run)


def run(
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Where results are filed.")] = Path(
        "benchmarks/results"
    ),
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page there, as Markdown.")] = None,
    as_json: Json = False,
) -> None:
    """What papers found, what filed results say of it, and a plain call: agrees, disagrees, cannot tell, not run."""
    from windtunnel.checkpoint import write_atomically
    from windtunnel.claims import CLAIMS, document, judged, page, read_filed
    from windtunnel.claims.page import table

    found = judged(CLAIMS, read_filed(results))
    if write is not None:
        if not write.parent.is_dir():
            raise InputError(f"--write {write}: no such folder")
        write_atomically(write, lambda partial: partial.write_text(page(found), encoding="utf-8"))
    screen = Screen(as_json)
    made = table(found)
    screen.finish(document(found), made.rich(padding=(0, 1)), *([] if write is None else [str(write)]))
