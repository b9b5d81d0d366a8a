"""`windtunnel extend`: a trained run made to read longer text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.options import Data, Device, DType, Json, Packages, SetField, TextField, count

if TYPE_CHECKING:
    from windtunnel.data.shards import Dataset
    from windtunnel.data.tokenizers import Tokenizer
    from windtunnel.training.extending import Extension
    from windtunnel.training.run import RunResult

_EXAMPLE = """Examples:

windtunnel extend runs/llama --method yarn --factor 4 --tokens 200k --out runs/llama-yarn

windtunnel extend runs/alibi --method none --factor 2 --tokens 1M --out runs/alibi-longer

windtunnel extend runs/imported --method yarn --factor 4 --data my.txt --tokens 2M --out runs/imported-yarn

windtunnel evaluate runs/llama runs/llama-yarn --tasks length:scalings=yarn shows what the training adds.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("extend", epilog=_EXAMPLE)(run)


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    method: Annotated[
        str,
        typer.Option(help="linear, ntk, dynamic, yarn or llama3; none: longer sequences, positions as they are."),
    ],
    factor: Annotated[float, typer.Option(metavar="NUMBER", help="How many times the trained length.")],
    tokens: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Tokens to train on, e.g. 2M.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The run folder to make.")],
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    set_field: SetField = "meta.pile_set_name",
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Peak learning rate; else a tenth of the run's, 2e-5 for an imported one."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Sequences a step; else as many tokens as before.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="COUNT", parser=count, help="Of the data's order; else another than the run's."),
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="CPU threads.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder; begins it where there is none.")
    ] = False,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Rescale a run's rotary positions and train it further on longer sequences, of its own text or of --data."""
    from windtunnel.cli.progress import stage_progress, training_progress
    from windtunnel.cli.screen import Screen, facts
    from windtunnel.cli.sources import EVALUATION_TOKENS, read_dataset
    from windtunnel.execution import Execution
    from windtunnel.training.extending import extend, plan

    execution = Execution(device=device, dtype=dtype, threads=threads)  # type: ignore[arg-type]
    execution.resolve()
    known = tuple(packages)

    def read(tokenizer: "Tokenizer", length: int) -> "Dataset":
        with stage_progress("data") as progress:
            return read_dataset(data, text_field, set_field, tokenizer, length, EVALUATION_TOKENS, progress)

    text = read if data else None
    made = plan(folder, method, factor, tokens, data=text, learning_rate=lr, batch=batch, seed=seed, packages=known)
    screen = Screen(as_json)
    screen.say(facts(_announcement(made, out)))
    with training_progress(f"{folder.name} by {method}") as progress:
        result = extend(made, out, execution, resume, progress)
    record = {
        "folder": str(out),
        "run": str(folder),
        "method": method,
        "trained": made.trained,
        "context": made.settings.context,
        "settings": made.settings.to_json(),
        "result": result.to_json(),
    }
    screen.finish(record, facts(_outcome(result)))
    if result.diverged:
        raise typer.Exit(1)


def _announcement(made: "Extension", out: Path) -> dict[str, str]:
    settings = made.settings
    return {
        "from": f"{made.source.folder}, trained at {made.trained:,} tokens",
        "to": f"{settings.context:,} tokens by {made.method}",
        "training": f"{settings.steps:,} steps of {settings.batch_size} x {settings.context}, learning rate "
        f"{settings.learning_rate:.3g}",
        "folder": str(out),
    }


def _outcome(result: "RunResult") -> dict[str, str]:
    if result.diverged:
        return {"diverged": "the loss left its range; try a smaller --lr"}
    last = result.horizons["1.0"]
    return {"loss": f"{last['loss']:.4f} nats a token, {last['bits_per_byte']:.4f} bits a byte, at the new length"}
