"""`windtunnel bench decode`: how fast models decode, and what their state costs."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.options import CacheType, Compile, Json, Settings, complete_recipe, count
from windtunnel.cli.screen import Screen, finite
from windtunnel.errors import InputError
from windtunnel.values import parse_count, parse_settings

if TYPE_CHECKING:
    from windtunnel.bench.decode_plan import Plan
    from windtunnel.root import Model

EXAMPLE = """Examples:

windtunnel bench decode

windtunnel bench decode llama griffin wide=griffin:window=512 --set layers=12 --prompts 64,4k --out decode
"""
ARMS = ("llama", "mqa_transformer", "griffin", "hawk")
SIZES = {"layers": 6, "width": 256, "vocab": 1024}


def run(
    arms: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LABEL=]RECIPE[:NAME=VALUE,...]...",
            help=f"The first is the baseline. Without any: {' '.join(ARMS)}.",
            autocompletion=complete_recipe,
            show_default=False,
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006
    prompts: Annotated[str, typer.Option(metavar="COUNT,...", help="Prompt lengths.")] = "64,256,1024",
    batches: Annotated[str, typer.Option(metavar="COUNT,...", help="Sequences that decode together.")] = "1,4,16",
    tokens: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="New tokens of a generation.")] = 32,
    positions: Annotated[
        str, typer.Option(metavar="NEAR,FAR|none", help="Where in a text the time of a token is compared.")
    ] = "2048,16384",
    rounds: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Turns of every contestant.")] = 5,
    threads: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="CPU threads.")] = 2,
    compiled: Compile = False,
    cache_dtype: CacheType = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write decode.json and decode.html with plots there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time to the first token and between tokens, throughput, state, beside the time of the bytes; on the CPU."""
    from windtunnel.bench.decode_plan import Plan

    plan = Plan(
        prompts=_counts("prompts", prompts),
        batches=_counts("batches", batches),
        tokens=tokens,
        positions=() if positions == "none" else _counts("positions", positions),
        rounds=rounds,
        threads=threads,
        compiled=compiled,
        cache_dtype=cache_dtype,
    )
    specs = _specs(arms or ARMS, parse_settings(settings), plan)
    if out is not None:
        _make(out)
    from windtunnel.bench import decode, decode_tables

    result = decode.run(specs, plan, say=_say)
    files = [] if out is None else _written(out, result)
    screen = Screen(as_json)
    if as_json:
        screen.finish(result)
        return
    for table in decode_tables.tables(result):
        screen.say(table.caption, style="bold")
        screen.say(table.rich())
        screen.say(table.note + "\n")
    for file in files:
        screen.say(str(file))


def _counts(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(parse_count(part) for part in text.split(","))
    except InputError as error:
        raise InputError(f"--{name}: {error}") from error


def _specs(arms: Sequence[str], settings: Mapping[str, Any], plan: "Plan") -> "dict[str, Model]":
    """Each arm's spec at one size, for contexts of the longest text unless a setting says otherwise."""
    from windtunnel.cli.sources import recipe_spec
    from windtunnel.comparison.arms import parse_arm

    sizes = {**SIZES, "context": plan.longest, **settings}
    specs: dict[str, Model] = {}
    for text in arms:
        request = parse_arm(text)
        if request.label in specs:
            raise InputError(f"arm {request.label!r} is there twice; give one a label: other={text}")
        specs[request.label] = recipe_spec(request.recipe, {**sizes, **request.settings})
    return specs


def _make(folder: Path) -> None:
    """Refused before the minutes of measuring, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: {error.strerror}") from error


def _written(folder: Path, result: dict[str, Any]) -> list[Path]:
    from windtunnel.bench.decode_page import render
    from windtunnel.checkpoint import write_json
    from windtunnel.report import write_page

    page = write_page(folder / "decode.html", render(result))
    write_json(folder / "decode.json", finite(result))
    return [page, folder / "decode.json"]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
