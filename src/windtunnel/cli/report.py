"""`windtunnel report`: a study's table and page, from its files alone."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import Json, Packages
from windtunnel.cli.screen import Screen

_EXAMPLE = """Examples:

windtunnel report studies/first

windtunnel report studies/first --out first.html

Nothing is trained: results.json and the page are made again from the runs in the folder.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report", epilog=_EXAMPLE)(run)


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder that `compare` or `scale` wrote.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; else report.html in the study.")] = None,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Make the results, the table and report.html of a study or a ladder again from its files."""
    if (study / "ladder.json").is_file():
        from windtunnel.cli.ladders import report_again

        report_again(study, out, tuple(packages), as_json)
        return
    from windtunnel.cli.studies import show_results
    from windtunnel.comparison.report import render_report, write_report
    from windtunnel.comparison.results import assemble
    from windtunnel.report import write_page

    results = assemble(study, tuple(packages))
    page = write_report(results, study) if out is None else write_page(out, render_report(results))
    show_results(Screen(as_json), results, page)
