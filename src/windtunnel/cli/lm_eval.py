"""`windtunnel lm-eval`: a run's scores by EleutherAI's lm-evaluation-harness."""

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from windtunnel.cli.options import Device, Json, Packages, count
from windtunnel.errors import InputError

_EXAMPLE = """Examples:

windtunnel lm-eval runs/neo --tasks ./tasks

windtunnel lm-eval runs/neo --tasks lambada_openai,piqa --shots 0 --limit 200 --online --json

A folder holds tasks as the harness's YAML files; functions that they name are run.
"""
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("lm-eval", epilog=_EXAMPLE)(run)


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    tasks: Annotated[
        str, typer.Option(metavar="FOLDER|NAME,...", help="Folders of tasks, or tasks by name; commas between them.")
    ],
    shots: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Examples before each item; else the task's.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Only so many first items of each task.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(metavar="TOKENS", parser=count, help="Tokens it is given at most; else its context.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch", metavar="COUNT", parser=count, help="Texts that are read at once.")
    ] = 8,
    online: Annotated[bool, typer.Option("--online", help="Data may be fetched from the Hugging Face hub.")] = False,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="A checkpoint of the run; else its final weights.")
    ] = None,
    device: Device = "auto",
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Score a run on tasks of lm-evaluation-harness, zero-shot or after examples."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit: expected at least 1 item, got {limit}")
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError("lm-eval needs EleutherAI's harness: pip install 'windtunnel[lm-eval]'")
    if not online:
        os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    from windtunnel.execution import Execution
    from windtunnel.runs import load

    opened = load(folder, checkpoint, Execution(device=device).resolve().device, tuple(packages))

    from windtunnel.cli.screen import Screen
    from windtunnel.interop.lm_eval import RunModel, evaluate, versions

    model = RunModel(opened, length, batch_size)
    found = evaluate(model, [task for task in tasks.split(",") if task], shots, limit)
    record = {
        "run": str(folder),
        "tasks": found,
        "settings": {"limit": limit, "length": model.max_length, "batch_size": batch_size},
        "versions": versions(),
    }
    Screen(as_json).finish(record, _table(found))


def _table(found: dict[str, dict[str, Any]]) -> Any:
    from windtunnel.cli.screen import table

    rows = [
        [
            task,
            metric,
            f"{each['value']:.4f}",
            "" if each["error"] is None else f"{each['error']:.4f}",
            str(figures["items"]),
            str(figures["shots"]),
        ]
        for task, figures in found.items()
        for metric, each in figures["metrics"].items()
    ]
    return table(["task", "metric", "value", "s.e. over items", "items", "shots"], rows, numeric=(2, 3, 4, 5))
