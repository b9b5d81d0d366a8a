"""`windtunnel train`: one recipe, or a run further, on one text or task, into a run folder."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import (
    Data,
    Device,
    DType,
    Items,
    Json,
    Mixing,
    Packages,
    SetField,
    Settings,
    Task,
    TextField,
    TokenizerPath,
    Vocabulary,
    complete_recipe,
    count,
)

_EXAMPLE = """Examples:

windtunnel train palm --data my.txt --tokens 20M --out runs/palm

windtunnel train palm --settings paper --tokens 5M --out runs/as-published

windtunnel train llama --data pile.jsonl.zst --data code=src/ --mix mix.toml --tokens 20M --out runs/mixed

windtunnel train ngpt --tokens 2M --set layers=3 --set width=64 --context 128 --out runs/small

windtunnel train llama --task mqar:pairs=8 --tokens 4M --set layers=2 --set width=64 --batch 64 --out runs/mqar

windtunnel train runs/imported --data my.txt --tokens 2M --context 512 --out runs/tuned

torchrun --nproc-per-node 8 -m windtunnel train palm --data my.txt --tokens 2B --mesh replicate=2 --out runs/large

Ctrl-C and SIGTERM save first; the same command with --resume goes on, to the same bits; with --resume --from step-200
it goes back to a kept checkpoint first.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train", epilog=_EXAMPLE)(run)


def run(
    begin: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN",
            help="A recipe (see `windtunnel recipes`), or the folder of a finished or imported run, whose weights are "
            "trained further.",
            autocompletion=complete_recipe,
        ),
    ],
    tokens: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Tokens to train on, e.g. 20M.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The run folder to make.")],
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    set_field: SetField = "meta.pile_set_name",
    mix: Mixing = [],  # noqa: B006
    task: Task = None,
    items: Items = None,
    vocab: Vocabulary = None,
    tokenizer: TokenizerPath = None,
    settings: Settings = [],  # noqa: B006
    context: Annotated[
        int | None,
        typer.Option(metavar="COUNT", parser=count, help="Tokens a sequence; else the recipe's own, or the run's."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Sequences an optimiser step; else 16.")
    ] = None,
    batch_ramp: Annotated[
        str | None,
        typer.Option(metavar="COUNT:SHARE,...", help="Smaller steps first: 4:0.2,8:0.45 is 4 to a fifth of the steps."),
    ] = None,
    accumulation: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="Micro-batches that a step is cut into, to save memory.")
    ] = 1,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            help="Peak learning rate; else the recipe's, for its width; a tenth of a run's; 2e-5 for an imported one.",
        ),
    ] = None,
    optimiser: Annotated[
        str | None, typer.Option(help="adamw, adam, sgd, muon or adafactor (PaLM's); else adamw.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="wsd (constant, then a linear cooldown), cosine or rsqrt (PaLM's); else wsd."),
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps; else the recipe's, or 0.03.")] = None,
    cooldown: Annotated[
        float | None, typer.Option(help="Share of the steps over which the rate falls linearly; else 0.2.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Of matrices and tables; else the recipe's, or 0.1.")
    ] = None,
    z_loss: Annotated[float | None, typer.Option(help="Weight of (log Z)² beside the loss; PaLM's is 1e-4.")] = None,
    mup: Annotated[
        int | None,
        typer.Option(
            "--mup",
            metavar="WIDTH",
            parser=count,
            help="Under muP from this width, whose learning rate then serves: adamw, adam or sgd.",
        ),
    ] = None,
    rules: Annotated[
        str,
        typer.Option(
            "--settings",
            help="own: what belongs to the recipe's idea; common: the same for all; paper: how its paper trained.",
        ),
    ] = "own",
    spikes: Annotated[
        bool, typer.Option("--spikes/--no-spikes", help="Go back before a loss spike and pass over its data, or not.")
    ] = True,
    skips: Annotated[
        list[str],
        typer.Option("--skip", metavar="FROM:TO", help="After FROM steps pass over the data of TO - FROM; repeats."),
    ] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Seed of the initial weights.")] = 0,
    data_seed: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Seed of the data's order; else --seed.")
    ] = None,
    evaluation_tokens: Annotated[
        int | None,
        typer.Option(metavar="COUNT", parser=count, help="Held-out tokens to set aside and score; else 65,536."),
    ] = None,
    max_epochs: Annotated[
        float, typer.Option(help="Refuse to go through the training text more often than this.")
    ] = 4.0,
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="CPU threads.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="COUNT", parser=count, help="Threads that read the data ahead; else 1 with a GPU, or 0."),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the blocks: 10-40 s first.")] = False,
    recompute: Annotated[
        bool, typer.Option("--checkpoint-activations", help="Recompute activations in the backward pass: less memory.")
    ] = False,
    mesh: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS=COUNT,...",
            help="Under torchrun: replicate=2,shard=4, say (also expert, context, tensor); else all is sharded.",
        ),
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds that processes wait for one that does not answer.")] = 600.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder; begins it where there is none.")
    ] = False,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="CHECKPOINT", help="With --resume: go back to a kept one, such as step-200."),
    ] = None,
    keep: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Checkpoints to keep.")] = 2,
    save_seconds: Annotated[float, typer.Option(help="Seconds of training between checkpoints.")] = 60.0,
    background: Annotated[
        bool,
        typer.Option(
            "--save-in-background/--save-in-turn",
            help="Write checkpoints while the training goes on, or let it wait: the same files.",
        ),
    ] = True,
    profile: Annotated[
        int | None,
        typer.Option(metavar="STEPS", parser=count, help="Record so many steps: a trace and the slowest operators."),
    ] = None,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Train one recipe, or a run further, and score it on held-out text, or on the held-out items of a task."""
    from windtunnel.cli.runs import Request, train_and_report
    from windtunnel.cli.sources import read_mix
    from windtunnel.execution import Execution
    from windtunnel.training.spikes import Spikes

    training = {
        "tokens": tokens,
        "batch_size": batch,
        "ramp": batch_ramp,
        "accumulation": accumulation,
        "learning_rate": lr,
        "optimiser": optimiser,
        "schedule": schedule,
        "warmup": warmup,
        "cooldown": cooldown,
        "weight_decay": weight_decay,
        "z_loss": z_loss,
        "spikes": Spikes() if spikes else None,
        "skips": tuple(skips),
        "seed": seed,
        "data_seed": seed if data_seed is None else data_seed,
        "evaluation_tokens": evaluation_tokens,
    }
    request = Request(
        begin=begin,
        out=out,
        data=tuple(data),
        text_field=text_field,
        set_field=set_field,
        mix=read_mix(mix),
        task=task,
        items=items,
        vocab=vocab,
        tokenizer=tokenizer,
        context=context,
        settings=tuple(settings),
        training=training,
        rules=rules,
        mup=mup,
        max_epochs=max_epochs,
        execution=Execution(
            device=device,
            dtype=dtype,  # type: ignore[arg-type]
            compile=compiled,
            checkpoint=recompute,
            threads=threads,
            workers=workers,
        ),
        resume=resume,
        mesh=mesh,
        patience=patience,
        packages=tuple(packages),
        saving={"start": start, "keep": keep, "save_seconds": save_seconds, "background": background},
        profile=profile,
    )
    train_and_report(request, as_json)
