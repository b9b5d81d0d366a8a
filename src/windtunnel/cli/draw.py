"""`windtunnel draw`: pictures from a run that was trained on pictures."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import Json, Packages, count
from windtunnel.cli.screen import Screen
from windtunnel.errors import InputError

_EXAMPLE = """Examples:

windtunnel draw runs/digits --out digits.png

windtunnel draw runs/digits --out digits.png --count 100 --across 20 --temperature 0.8 --seed 7
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("draw", epilog=_EXAMPLE)(run)


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, trained on pictures.")],
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture to write.")],
    pictures: Annotated[int, typer.Option("--count", metavar="COUNT", parser=count, help="How many to draw.")] = 64,
    across: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="How many in a line.")] = 16,
    scale: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="The side of a pixel on the sheet.")] = 4,
    temperature: Annotated[float, typer.Option(help="Of the draws; 0 takes the likeliest pixel.")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Seed of the draws.")] = 0,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Draw pictures pixel by pixel and write them as one PNG file."""
    for name, value in (("count", pictures), ("across", across), ("scale", scale)):
        if value < 1:
            raise InputError(f"--{name}: expected at least 1, got {value}")
    from windtunnel.checkpoint import write_atomically
    from windtunnel.inference.pictures import draw
    from windtunnel.inference.sampling import Sampling
    from windtunnel.report.picture import png, sheet
    from windtunnel.runs import load

    opened = load(folder, packages=tuple(packages))
    drawn = draw(opened, pictures, Sampling(temperature=temperature, seed=seed))
    grey = (255 * drawn).round().to(dtype=drawn.new_empty(0).byte().dtype).numpy()
    page = sheet(grey, across, scale)
    write_atomically(out, lambda partial: partial.write_bytes(png(page)))
    record = {"file": str(out), "pictures": pictures, "rows": grey.shape[1], "columns": grey.shape[2], "seed": seed}
    Screen(as_json).finish(record, f"{out}: {pictures} pictures of {grey.shape[1]} x {grey.shape[2]} pixels")
