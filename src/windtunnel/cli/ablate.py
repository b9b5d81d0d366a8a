"""`windtunnel ablate`: what each part of a recipe is worth, every step an arm of a study."""

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import (
    Data,
    Device,
    DType,
    Json,
    SetField,
    Settings,
    TextField,
    TokenizerPath,
    Vocabulary,
    complete_recipe,
    count,
)

_EXAMPLE = """Examples:

windtunnel ablate palm --plan --out studies/palm-parts

windtunnel ablate ngpt --path --data my.txt --seeds 3 --out studies/to-ngpt

The parts are read off the two specs. The same command goes on with a study that was stopped; see docs/ablation.md.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ablate", epilog=_EXAMPLE)(run)


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", autocompletion=complete_recipe)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The study folder to make or to go on with.")],
    against: Annotated[
        str, typer.Option(metavar="RECIPE", help="What its parts are told from.", autocompletion=complete_recipe)
    ] = "llama",
    path: Annotated[
        bool, typer.Option("--path", help="Convert one into the other step by step, in place of removing single parts.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show the arms and the bill, and train nothing.")] = False,
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    set_field: SetField = "meta.pile_set_name",
    preset: Annotated[str, typer.Option(help="smoke, quick, standard or strict.")] = "quick",
    settings: Settings = [],  # noqa: B006
    vocab: Vocabulary = None,
    tokenizer: TokenizerPath = None,
    tokens: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Training tokens of a run.")] = None,
    seeds: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Reported seeds of an arm.")] = None,
    batch: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="Sequences a step.")] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Learning rates in an arm's grid.")
    ] = None,
    evaluation_tokens: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Held-out tokens to set aside and score.")
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
        str | None, typer.Option(metavar="auto|local|HOST:PORT", help="On a Ray cluster; see docs/cluster.md.")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Take a recipe apart: every part removed alone, or another recipe turned into it step by step."""
    from windtunnel.cli.sources import one_of, tokenizer_choice
    from windtunnel.cli.studies import carry_out, show_plan
    from windtunnel.comparison.ablation.arms import Ablation
    from windtunnel.comparison.request import StudyRequest
    from windtunnel.values import parse_settings

    sizes = parse_settings(settings)
    choice = tokenizer_choice(one_of("vocab", vocab, sizes.pop("vocab", None)), tokenizer)
    request = StudyRequest(
        arms=(),
        ablation=Ablation(recipe, against, "path" if path else "remove"),
        out=out,
        data=tuple(data) or None,
        text_field=text_field,
        set_field=set_field,
        preset=preset,
        settings=sizes,
        tokenizer=None if isinstance(choice, int) else choice,
        vocab=choice if isinstance(choice, int) else None,
        tokens=tokens,
        seeds=seeds,
        evaluation_tokens=evaluation_tokens,
        batch_size=batch,
        trials=trials,
        max_epochs=max_epochs,
        allow_param_gap=allow_param_gap,
        device=device,
        dtype=dtype,
        workers=workers,
        cluster=cluster,
    )
    (show_plan if plan else carry_out)(request, as_json)
