"""`windtunnel bench length`: how far past the trained length RoPE, ALiBi, Griffin and Hawk read."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import Json, count
from windtunnel.cli.screen import Screen

EXAMPLE = """Examples:

windtunnel bench length --out studies/length

windtunnel bench length --out studies/length --seeds 1 --tokens 200k --length 64

The first takes about 25 minutes on two cores that do nothing else. The same command goes on where it was interrupted.
"""


def run(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="For runs, pages and result.json.")],
    lengths: Annotated[
        list[int] | None,
        typer.Option("--length", metavar="COUNT", parser=count, help="A length to train at; repeats. Else 64 and 256."),
    ] = None,
    tokens: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="Bytes of text that a run reads.")
    ] = 800_000,
    tuned: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="Bytes that an extension is trained on.")
    ] = 100_000,
    seeds: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Runs of an arm.")] = 3,
    pieces: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Pieces of documents to read.")] = 32,
    layers: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Layers of a model.")] = 3,
    width: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Its width.")] = 64,
    threads: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="CPU threads.")] = 2,
    as_json: Json = False,
) -> None:
    """RoPE, ALiBi, Griffin and Hawk trained at two lengths and read past them; RoPE rescaled and trained further."""
    import sys

    from windtunnel.bench.length import Experiment
    from windtunnel.bench.length import run as carry_out

    chosen = Experiment().lengths if lengths is None else tuple(sorted(set(lengths)))
    experiment = Experiment(
        lengths=chosen,
        tokens=tokens,
        tuned=tuned,
        seeds=seeds,
        pieces=pieces,
        layers=layers,
        width=width,
        threads=threads,
    )
    result, found = carry_out(experiment, out, lambda words: print(words, file=sys.stderr, flush=True))
    screen = Screen(as_json)
    if as_json:
        screen.finish(result)
        return
    for table in found:
        screen.say(table.caption, style="bold")
        screen.say(table.rich(padding=(0, 1)))
        screen.say(table.note + "\n")
