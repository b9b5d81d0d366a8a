"""`windtunnel scale`: arms at many sizes and budgets, planned, tuned by a rule, trained and fitted."""

from pathlib import Path
from typing import Annotated, Any

import typer

from windtunnel.cli.options import (
    Data,
    Device,
    DType,
    Json,
    Mixing,
    Packages,
    SetField,
    Settings,
    TextField,
    TokenizerPath,
    Vocabulary,
    complete_recipe,
    count,
)
from windtunnel.errors import InputError

_EXAMPLE = """Examples:

windtunnel scale llama ngpt griffin --data my.txt --preset pilot --out studies/ladder

windtunnel scale llama palm --budgets 1e12,2.5e12,6.3e12,1.6e13 --plan --out studies/ladder

windtunnel scale llama ngpt diff_transformer griffin --preset small --out studies/night

An arm is [label=]recipe[:setting=value,...]. Presets: pilot, small (17k to 0.9M body parameters), medium (2.5M to 80M).

The same command goes on with a ladder that was stopped.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("scale", epilog=_EXAMPLE)(run)


def budgets_of(text: Any) -> Any:
    """FLOPs of each budget, as typed."""
    from windtunnel.comparison.ladders.design import parse_budgets

    try:
        return text if isinstance(text, tuple) else parse_budgets(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


def run(
    arms: Annotated[
        list[str],
        typer.Argument(metavar="ARM...", help="[label=]recipe[:setting=value,...]", autocompletion=complete_recipe),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The ladder's folder to make or to go on with.")],
    preset: Annotated[
        str | None, typer.Option(help="pilot, small or medium; else small on a CPU, medium on a GPU.")
    ] = None,
    budgets: Annotated[
        Any,
        typer.Option(
            metavar="FLOPS,...|FIRST:LAST[:COUNT]",
            parser=budgets_of,
            help="Training FLOPs of each budget: a list, or the first and the last of four (or COUNT).",
        ),
    ] = None,
    sizes: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Sizes of each budget; at least 5.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Seeds at the three sizes around each minimum.")
    ] = None,
    tokens_per_parameter: Annotated[
        float | None, typer.Option(metavar="RATIO", help="Tokens a parameter of the middle size; else the preset's.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print sizes, budgets and the bill; train nothing.")] = False,
    baseline: Annotated[str | None, typer.Option(metavar="ARM", help="Its label; else llama, else the first.")] = None,
    settings: Settings = [],  # noqa: B006
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    set_field: SetField = "meta.pile_set_name",
    mix: Mixing = [],  # noqa: B006
    context: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Tokens a sequence.")] = None,
    vocab: Vocabulary = None,
    tokenizer: TokenizerPath = None,
    batch: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Sequences a step.")] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Learning rates in the grid of a sweep.")
    ] = None,
    evaluation_tokens: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Held-out tokens to set aside and score.")
    ] = None,
    max_epochs: Annotated[
        float, typer.Option(help="Refuse to go through the training text more often than this.")
    ] = 4.0,
    allow_param_gap: Annotated[
        bool, typer.Option("--allow-param-gap", help="Take arms that cannot be matched in parameters; it is said.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Processes; else one a core or device.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|HOST:PORT",
            help="Runs on a Ray cluster that this machine is part of; see docs/cluster.md.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the blocks.")] = False,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Plan sizes and budgets, say the bill, tune by a rule, train every rung; write results.json and report.html."""
    from windtunnel.cli.ladders import carry_out, show_plan
    from windtunnel.cli.sources import one_of, read_mix, tokenizer_choice
    from windtunnel.comparison.ladders.request import LadderRequest
    from windtunnel.values import parse_settings

    common = parse_settings(settings)
    choice = tokenizer_choice(one_of("vocab", vocab, common.pop("vocab", None)), tokenizer)
    request = LadderRequest(
        arms=tuple(arms),
        out=out,
        preset=preset,
        budgets=budgets,
        sizes=sizes,
        seeds=seeds,
        tokens_per_parameter=tokens_per_parameter,
        context=one_of("context", context, common.pop("context", None)),
        batch_size=batch,
        evaluation_tokens=evaluation_tokens,
        trials=trials,
        baseline=baseline,
        settings=common,
        data=tuple(data) or None,
        text_field=text_field,
        set_field=set_field,
        mix=read_mix(mix),
        tokenizer=None if isinstance(choice, int) else choice,
        vocab=choice if isinstance(choice, int) else None,
        max_epochs=max_epochs,
        allow_param_gap=allow_param_gap,
        device=device,
        dtype=dtype,
        compile=compiled,
        workers=workers,
        cluster=cluster,
        packages=tuple(packages),
    )
    (show_plan if plan else carry_out)(request, as_json)
