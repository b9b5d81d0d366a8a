"""`windtunnel import`: a Hugging Face checkpoint as a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from windtunnel.cli.options import Json, weight_dtype

_EXAMPLE = """Examples:

windtunnel import ./gpt-neo-125m --out runs/neo

windtunnel import EleutherAI/gpt-neo-125m --out runs/neo

windtunnel import ./gpt-neo-2.7B --out runs/neo --dtype bfloat16

windtunnel import ./llama --out runs/llama --ignore unsloth_version
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("import", epilog=_EXAMPLE)(run)


def run(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER|NAME", help="A checkpoint's folder, or its name on the hub.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run's folder, new or empty.")],
    ignore: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="An attribute of config.json that does not matter; repeats."),
    ] = [],  # noqa: B006
    revision: Annotated[str | None, typer.Option(help="Of a name on the hub: a branch, tag or commit.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16 for the run's weights; else the checkpoint's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run of a Hugging Face checkpoint, to evaluate, extend, train on, generate from and serve."""
    from windtunnel.cli.progress import bytes_progress
    from windtunnel.cli.screen import Screen, facts
    from windtunnel.interop.hub import local_folder
    from windtunnel.interop.importing import import_folder

    stored = weight_dtype(dtype)
    screen = Screen(as_json)
    with bytes_progress("import") as progress:
        record = import_folder(local_folder(source, revision), out, ignore, source, progress, stored)
    if record["imported"]["pickled"]:
        screen.say(
            "The weights are in torch's own files; they were read by a load of weights alone, which runs no code."
        )
    screen.finish({"run": str(out), **record}, facts(_outcome(out, record["imported"])))


def _outcome(out: Path, imported: dict[str, Any]) -> dict[str, str]:
    tokenizer = imported["tokenizer"] or "none in the folder; texts cannot be read without one"
    return {
        "run": str(out),
        "family": f"{imported['family']} ({imported['architecture']})",
        "parameters": f"{imported['parameters']:,} in {imported['dtype']}",
        "tokenizer": tokenizer,
    }
