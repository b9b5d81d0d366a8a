"""The program: its verbs and the options that stand before them."""

from typing import Annotated

import typer

from windtunnel import __version__
from windtunnel.cli import (
    ablate,
    bench,
    claims,
    compare,
    coordinates,
    draw,
    evaluate,
    exporting,
    extend,
    fit,
    generate,
    importing,
    lm_eval,
    needles,
    plan,
    recipes,
    report,
    scale,
    selftest,
    serve,
    show,
    tokenizer,
    train,
)
from windtunnel.cli.group import Group

_EXAMPLE = """Examples:

windtunnel recipes

windtunnel show palm --set layers=6 --set width=256

windtunnel compare llama palm ngpt --data my.txt --preset quick --out studies/first

windtunnel VERB --help tells more about a verb.
"""

app = typer.Typer(
    name="windtunnel",
    cls=Group,
    help="A wind tunnel for language-model architectures: build variants, train them side by side, learn which wins.",
    epilog=_EXAMPLE,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"windtunnel {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


for verb in (
    recipes,
    show,
    train,
    compare,
    ablate,
    report,
    claims,
    scale,
    selftest,
    fit,
    coordinates,
    needles,
    evaluate,
    extend,
    generate,
    draw,
    serve,
    plan,
    importing,
    exporting,
    lm_eval,
):
    verb.register(app)
for room in (tokenizer, bench):
    room.register(app)
