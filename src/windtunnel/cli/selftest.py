"""`windtunnel selftest`: does the tool tell the truth on this machine?"""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import Json
from windtunnel.cli.screen import Screen
from windtunnel.errors import InputError

_EXAMPLE = """Examples:

windtunnel selftest

windtunnel selftest --all --out selftest

windtunnel selftest operations decoding

The quick ones take about two minutes, all of them about half an hour on two cores; the same command goes on where it
was interrupted.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("selftest", epilog=_EXAMPLE)(run)


def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="CHECK...", help="Some checks alone.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all/--quick", help="The long ones too.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep figures and runs there, and go on from them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Controls, null variants, coverage, ledger, data order, causality, invariants: what has to hold, does it?"""
    from windtunnel.selftest import CHECKS, chosen, table
    from windtunnel.selftest import run as carry_out

    checks = chosen(CHECKS, names or [], everything)
    if out is None and any(check.long for check in checks):
        raise InputError("selftest: long checks need --out FOLDER, so that they can go on where they were interrupted")
    with tempfile.TemporaryDirectory() as scratch:
        document = carry_out(checks, out or Path(scratch), lambda words: print(words, file=sys.stderr, flush=True))
    Screen(as_json).finish(document, table(document).rich(padding=(0, 1)))
    if not document["passed"]:
        raise typer.Exit(1)
