"""`windtunnel export`: a run as a folder that transformers loads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.options import Json, Packages, weight_dtype

if TYPE_CHECKING:
    from windtunnel.interop.exporting import Export

_EXAMPLE = """Examples:

windtunnel export runs/neo --out ./hf

windtunnel export runs/griffin --out ./hf --family recurrent_gemma --dtype bfloat16

A folder of the family 'windtunnel' loads after `import windtunnel.interop.auto`.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("export", epilog=_EXAMPLE)(run)


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write, new or empty.")],
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model_type to write; else the first that can say the model."),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; else the run's.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="A checkpoint of the run; else its final weights.")
    ] = None,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Write a run as a Hugging Face folder: configuration, weights, tokenizer and model card."""
    stored = weight_dtype(dtype)
    from windtunnel.cli.progress import bytes_progress
    from windtunnel.cli.screen import Screen, facts
    from windtunnel.interop.exporting import export_run

    with bytes_progress("export") as progress:
        exported = export_run(
            folder,
            out,
            family=family,
            dtype=stored,
            checkpoint=checkpoint,
            packages=tuple(packages),
            report=progress,
        )
    record = {
        "folder": str(out),
        "family": exported.family.name,
        "architecture": exported.family.architecture,
        "parameters": exported.parameters,
        "dtype": str(exported.dtype).removeprefix("torch."),
        "files": list(exported.files),
        "tokenizer": exported.tokenizer,
        "refused": dict(exported.reasons),
    }
    Screen(as_json).finish(record, facts(_outcome(exported)))


def _outcome(exported: "Export") -> dict[str, str]:
    native = exported.family.name != "windtunnel"
    how = "" if native else ", which loads after `import windtunnel.interop.auto`"
    said = {
        "folder": str(exported.folder),
        "class": f"{exported.family.architecture}{how}",
        "parameters": f"{exported.parameters:,} in {str(exported.dtype).removeprefix('torch.')}",
        "tokenizer": "tokenizer.json" if exported.tokenizer else "none that transformers could read",
    }
    if not native:
        said["why not"] = "; ".join(f"{name}: {why}" for name, why in exported.reasons.items())
    return said
