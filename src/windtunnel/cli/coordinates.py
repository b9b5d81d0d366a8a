"""`windtunnel coordinate-check`: whether a recipe keeps its activations' sizes over widths under muP."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import Json, Settings, complete_recipe, count
from windtunnel.cli.screen import Screen, console

_EXAMPLE = """Examples:

windtunnel coordinate-check llama

windtunnel coordinate-check gpt3 --widths 64,128,256,512,1024 --out check.html

Exit code 1 if the recipe fails; see docs/transfer.md.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("coordinate-check", epilog=_EXAMPLE)(run)


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", autocompletion=complete_recipe)],
    widths: Annotated[
        str, typer.Option(metavar="WIDTH,...", help="At least three, rising; the first is the base.")
    ] = "64,128,256,512",
    steps: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Steps of training.")] = 4,
    seeds: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Models of every width.")] = 3,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Learning rate; else the recipe's at the first width.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    contrast: Annotated[
        bool, typer.Option("--contrast/--no-contrast", help="Train the standard parametrisation beside it, or not.")
    ] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with charts.")] = None,
    as_json: Json = False,
) -> None:
    """Train a few steps at several widths: may this recipe be carried from one width to another by muP?"""
    from windtunnel.errors import InputError
    from windtunnel.report import write_page
    from windtunnel.training.coordinates import Parametrisation, Plan, check
    from windtunnel.training.coordinates_page import render, table, to_json
    from windtunnel.values import parse_settings

    plan = Plan(recipe, tuple(count(each) for each in widths.split(",")), steps, seeds, lr, parse_settings(settings))
    screen, progress = Screen(as_json), console(stderr=True)
    wanted: list[Parametrisation] = ["mup", "standard"] if contrast else ["mup"]
    results = [check(plan, each, lambda words: progress.print(words, style="dim")) for each in wanted]
    page = None
    if out is not None:
        try:
            page = write_page(out, render(results))
        except OSError as error:
            raise InputError(f"--out {out}: {error.strerror}") from error
    verdict = f"{recipe} passes" if results[0].passed else f"{recipe} fails: {'; '.join(results[0].faults)}"
    tables = [part for result in results for part in (table(result).caption, table(result).rich())]
    screen.finish({**to_json(results), "page": None if page is None else str(page)}, *tables, verdict)
    if page is not None and not as_json:
        screen.say(str(page))
    if not results[0].passed:
        raise typer.Exit(1)
