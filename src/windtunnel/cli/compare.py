"""`windtunnel compare`: arms side by side on real text or on a synthetic task, to a verdict."""

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
    state_size,
)

_EXAMPLE = """Examples:

windtunnel compare llama palm diff_transformer ngpt --data my.txt --preset quick --out studies/first

windtunnel compare llama palm serial=palm:parallel=false --seeds 3 --out studies/own

windtunnel compare llama hawk griffin --task induction:length=64 --out studies/induction

windtunnel compare llama ngpt griffin --preset standard --plan --out studies/long

windtunnel compare llama griffin --evaluate length:longest=4,needle --out studies/far

An arm is [label=]recipe[:setting=value,...], or [label=]RUN, which is the architecture of a run, such as an imported
one, at its own sizes and with drawn weights. Presets: smoke, quick, standard, strict.

The same command goes on with a study that was stopped.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare", epilog=_EXAMPLE)(run)


def run(
    arms: Annotated[
        list[str],
        typer.Argument(
            metavar="ARM...", help="[label=]recipe[:setting=value,...], or [label=]RUN", autocompletion=complete_recipe
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The study folder to make or to go on with.")],
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    set_field: SetField = "meta.pile_set_name",
    mix: Mixing = [],  # noqa: B006
    task: Task = None,
    items: Items = None,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES|baseline",
            parser=state_size,
            help="Match the arms in the decoding state after an item of the task, not in parameters.",
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="smoke, quick, standard or strict.")] = "quick",
    baseline: Annotated[str | None, typer.Option(metavar="ARM", help="Its label; else llama, else the first.")] = None,
    settings: Settings = [],  # noqa: B006
    context: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Tokens a sequence.")] = None,
    vocab: Vocabulary = None,
    tokenizer: TokenizerPath = None,
    tokens: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Training tokens of a run.")] = None,
    seeds: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Reported seeds of an arm.")] = None,
    looks: Annotated[
        int, typer.Option(help="Double the seeds while a verdict is inconclusive: at most 3 looks, which share alpha.")
    ] = 1,
    batch: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Sequences a step.")] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Learning rates in an arm's grid.")
    ] = None,
    evaluation_tokens: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Held-out tokens to set aside and score.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Speedups within this share of 1 count as equivalent.")] = 0.03,
    primary: Annotated[
        str | None, typer.Option(metavar="TRACK", help="The track of the verdict: iso_token, iso_flop or iso_time.")
    ] = None,
    reference: Annotated[
        float | None,
        typer.Option(
            metavar="NATS", help="Held-out loss a token that a strong baseline reaches; a worse one caps every verdict."
        ),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="More runs: noise tells initial values from data, batch tries half and twice the batch.",
        ),
    ] = None,
    max_epochs: Annotated[
        float, typer.Option(help="Refuse to go through the training text more often than this.")
    ] = 4.0,
    allow_param_gap: Annotated[
        bool, typer.Option("--allow-param-gap", help="Compare arms that cannot be matched in parameters; it is said.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Processes; else one a core or device.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|HOST:PORT",
            help="Trials and runs on a Ray cluster that this machine is part of; see docs/cluster.md.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the blocks.")] = False,
    packages: Packages = [],  # noqa: B006
    mup: Annotated[
        int | None,
        typer.Option(
            "--mup", metavar="WIDTH", parser=count, help="Every arm under muP from this width, if it passes the check."
        ),
    ] = None,
    rules: Annotated[
        str,
        typer.Option("--settings", help="common: the same training for all; paper: beside each arm its paper's own."),
    ] = "common",
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE,...],...",
            help="Ask the trained runs, as `windtunnel evaluate --tasks` does; the answers stand in the report.",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the arms and the bill, and train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Tune, train and time every arm under equal conditions; print the table, write results.json and report.html."""
    from windtunnel.cli.sources import one_of, read_mix, tokenizer_choice
    from windtunnel.cli.studies import carry_out, show_plan
    from windtunnel.comparison.request import StudyRequest
    from windtunnel.values import parse_settings

    sizes = parse_settings(settings)
    choice = tokenizer_choice(one_of("vocab", vocab, sizes.pop("vocab", None)), tokenizer)
    context = one_of("context", context, sizes.pop("context", None))
    request = StudyRequest(
        arms=tuple(arms),
        out=out,
        data=tuple(data) or None,
        text_field=text_field,
        set_field=set_field,
        mix=read_mix(mix),
        task=task,
        items=items,
        state=state,
        preset=preset,
        baseline=baseline,
        settings=sizes if context is None else {**sizes, "context": context},
        tokenizer=None if isinstance(choice, int) else choice,
        vocab=choice if isinstance(choice, int) else None,
        tokens=tokens,
        seeds=seeds,
        looks=looks,
        evaluation_tokens=evaluation_tokens,
        batch_size=batch,
        trials=trials,
        margin=margin,
        primary=primary,
        reference=reference,
        probes=tuple(probe.split(",")) if probe else (),
        max_epochs=max_epochs,
        allow_param_gap=allow_param_gap,
        device=device,
        dtype=dtype,
        compile=compiled,
        workers=workers,
        cluster=cluster,
        packages=tuple(packages),
        rules=rules,
        mup=mup,
    )
    if plan:
        show_plan(request, as_json, evaluate)
    else:
        carry_out(request, as_json, evaluate)
