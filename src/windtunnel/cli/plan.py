"""`windtunnel plan`: what a model would need on hardware that is not here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.options import Json, Packages, Settings, complete_recipe, count
from windtunnel.cli.screen import Screen
from windtunnel.errors import InputError

if TYPE_CHECKING:
    from windtunnel.planning import Plan

_EXAMPLE = """Examples:

windtunnel plan palm --set size=540b --hardware tpu-v4 --devices 6144

windtunnel plan palm --set size=540b --hardware tpu-v4 --devices 6144 --mesh tensor=12,replicate=2 --batch 2048
--recompute 0.75 --optimiser adafactor --tokens 780B --throughput 238300 --out palm.html

windtunnel plan mixtral --set size=8x7b --hardware h100 --devices 64 --serve-mesh tensor=8 --price 2.5

windtunnel plan --published
"""
_ASKED = (
    "batch",
    "tokens",
    "optimiser",
    "dtype",
    "gradients",
    "recompute",
    "microbatch",
    "utilisation",
    "link_share",
    "memory_share",
    "throughput",
    "price",
    "serve_length",
    "serve_mesh",
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("plan", epilog=_EXAMPLE)(run)


def run(
    call: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe, a run folder or a spec.json.",
            autocompletion=complete_recipe,
            show_default=False,
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006
    hardware: Annotated[
        str,
        typer.Option(metavar="NAME", help="v100, a100, h100, h200, tpu-v3, tpu-v4; cpu: this machine, measured."),
    ] = "h100",
    hardware_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON that adds hardware or changes some (docs/planning.md).")
    ] = None,
    devices: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="How many.")] = 8,
    mesh: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS=COUNT,...",
            help="replicate, shard, expert, context, tensor, pipeline; shard takes the rest. Without it: searched.",
        ),
    ] = None,
    context: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Sequence length; else the recipe's own.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Sequences of a step; else about 4M tokens.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="To train on; else 20 for each active parameter.")
    ] = None,
    optimiser: Annotated[str, typer.Option(help="adamw, adam, adafactor (PaLM's), muon or sgd.")] = "adamw",
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32; else as the hardware can.")] = None,
    gradients: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Of one gradient; else as the precision.")
    ] = None,
    recompute: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the forward pass, done twice; else 0 or 1, as it fits.")
    ] = None,
    microbatch: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Sequences of a device at a time.")
    ] = None,
    utilisation: Annotated[float, typer.Option(metavar="SHARE", help="Of the peak that products reach.")] = 0.6,
    link_share: Annotated[float, typer.Option(metavar="SHARE", help="Of bandwidths that transfers reach.")] = 0.7,
    memory_share: Annotated[float, typer.Option(metavar="SHARE", help="Of the memory that can be used.")] = 0.9,
    throughput: Annotated[
        float | None, typer.Option(metavar="TOKENS/S", help="As observed: MFU and HFU from it, not from the model.")
    ] = None,
    price: Annotated[float | None, typer.Option(metavar="NUMBER", help="Of a device-hour.")] = None,
    serve_length: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Tokens of a served text; else the context.")
    ] = None,
    serve_mesh: Annotated[
        str | None, typer.Option(metavar="AXIS=COUNT,...", help="tensor and pipeline of one served copy.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with charts.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Only the published cases it is held to.")] = False,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Memory, step time, MFU, traffic, cost and serving of a model on hardware that one does not have."""
    screen = Screen(as_json)
    if published:
        _published(screen)
        return
    if recipe is None:
        raise InputError("RECIPE is missing: name a recipe, a run folder or a spec.json, or give --published")
    options = {name: value for name, value in call.params.items() if name in _ASKED}
    said = [name for name in (*_ASKED, "mesh") if _said(call, name)]
    if devices < 1:
        raise InputError(f"--devices: expected at least 1, got {devices}")
    from windtunnel.cli.sources import find_spec
    from windtunnel.data.shards import default_cache
    from windtunnel.planning import Settings as Asked
    from windtunnel.planning import find, plan
    from windtunnel.values import parse_settings

    asked = Asked(**options, given=frozenset(said))
    source = find_spec(recipe, parse_settings(settings), packages, context)
    found = find(hardware, hardware_file, default_cache())
    made = plan(source.spec, source.length, found, devices, asked, mesh)
    title = f"{source.origin} on {devices:,} x {found.name}"
    files = [] if out is None else [_write(out, made, title)]
    if as_json:
        screen.finish({"model": source.origin, **made.to_json()})
        return
    _print(screen, made, title)
    for file in files:
        screen.say(str(file))


def _said(call: typer.Context, name: str) -> bool:
    source = call.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _write(out: Path, made: "Plan", title: str) -> Path:
    from windtunnel.planning.page import render
    from windtunnel.report import write_page

    try:
        return write_page(out, render(made, title))
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from error


def _print(screen: Screen, made: "Plan", title: str) -> None:
    from windtunnel.planning import tables

    screen.say(title, style="bold")
    screen.say(tables.summary(made.step) + "\n")
    for table in tables.tables(made):
        screen.say(table.caption, style="bold")
        screen.say(table.rich(padding=(0, 1)))
        if table.note:
            screen.say(table.note)
        screen.say()


def _published(screen: Screen) -> None:
    from windtunnel.planning import cases
    from windtunnel.planning.tables import published

    found = cases()
    table = published(found)
    screen.finish({"cases": [case.to_json() for case in found]}, table.rich(padding=(0, 1)), table.note)
