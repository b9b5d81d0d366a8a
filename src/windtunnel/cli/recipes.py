"""`windtunnel recipes`: what there is, read from the table without building anything."""

import dataclasses

import typer

from windtunnel import recipes
from windtunnel.cli.options import Json
from windtunnel.cli.screen import Screen, table

_EXAMPLE = """Examples:

windtunnel recipes

windtunnel recipes --json
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("recipes", epilog=_EXAMPLE)(run)


def run(as_json: Json = False) -> None:
    """List the recipes: name, paper, parts, published sizes."""
    entries = [recipes.entry(name) for name in recipes.names()]
    screen = Screen(as_json)
    if as_json:
        screen.finish({"recipes": [dataclasses.asdict(entry) for entry in entries]})
        return
    rows = [[entry.name, entry.paper, entry.parts, ", ".join(entry.sizes)] for entry in entries]
    screen.say(table(["recipe", "paper", "parts", "sizes"], rows, whole=(0,), show_lines=False))
    screen.say("Any other size: --set layers=6 --set width=256. `windtunnel show RECIPE` writes one out.", style="dim")
