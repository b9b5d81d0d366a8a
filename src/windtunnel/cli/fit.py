"""`windtunnel fit`: scaling laws from finished runs at many sizes and budgets."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import Json
from windtunnel.cli.screen import Screen
from windtunnel.errors import InputError

_EXAMPLE = """Examples:

windtunnel fit studies/size-1 studies/size-2 studies/size-3 studies/size-4 studies/size-5 --out fit.html

windtunnel fit runs.csv --baseline llama --json

A table (.csv) has the columns arm, parameters, tokens, flops, loss, and body if known; one line a run.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("fit", epilog=_EXAMPLE)(run)


def run(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE...", help="Studies' folders, results.json files, or tables (.csv).", show_default=False
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="Whom the others are held to; else the studies' own.")
    ] = None,
    robust: Annotated[
        bool, typer.Option("--robust", help="Huber's loss for L(N, D), where single runs are broken; slower.")
    ] = False,
    draws: Annotated[int, typer.Option(metavar="COUNT", help="Refits behind every interval; at least 100.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the refits' draws.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with charts.")] = None,
    as_json: Json = False,
) -> None:
    """L(N, D), L(C) and the compute that one arm saves another, from finished runs; nothing is trained."""
    from windtunnel.comparison.scaling import fit_arms, read_sources
    from windtunnel.comparison.scaling.page import render, tables
    from windtunnel.report import write_page

    if draws < 100:
        raise InputError(f"--draws: expected at least 100, got {draws}")
    if seed < 0:
        raise InputError(f"--seed: expected at least 0, got {seed}")
    screen = Screen(as_json)
    source = read_sources(sources or [], baseline)
    document = fit_arms(source, robust=robust, seed=seed, draws=draws, say=screen.say)
    page = None
    if out is not None:
        try:
            page = write_page(out, render(document))
        except OSError as error:
            raise InputError(f"--out {out}: {error.strerror}") from error
    if as_json:
        screen.finish({**document, "page": None if page is None else str(page)})
        return
    for table in tables(document):
        screen.say(table.caption, style="bold")
        screen.say(table.rich(padding=(0, 1)))
        if table.note:
            screen.say(table.note + "\n")
    if page is not None:
        screen.say(str(page))
