"""`windtunnel evaluate`: questions to trained runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.options import Data, Device, Json, Packages, TextField, count
from windtunnel.cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from windtunnel.evaluation.base import Evaluation
    from windtunnel.evaluation.evaluate import Answers
    from windtunnel.execution import Execution

_EXAMPLE = """Examples:

windtunnel evaluate runs/palm runs/griffin --out evaluations/first

windtunnel evaluate runs/llama --tasks loss,length:longest=4,scalings=yarn+ntk

windtunnel evaluate a=runs/a-0 a=runs/a-1 b=runs/b-0 b=runs/b-1 --tasks positions --json

windtunnel evaluate studies/first --tasks length,decoding asks all runs of a study, and its report shows the answers

Runs of one label are seeds of one arm. Tasks and their settings: docs/evaluation.md. What is interrupted goes on when
the same command is given again.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate", epilog=_EXAMPLE)(run)


def run(
    runs: Annotated[
        list[str], typer.Argument(metavar="[LABEL=]RUN...", help="Run folders, or a study's.", show_default=False)
    ],
    tasks: Annotated[
        str | None,
        typer.Option(metavar="NAME[:SETTING=VALUE,...],...", help="What to ask; else loss, by position and by hits."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write evaluation.html and evaluation.json there.")
    ] = None,
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(metavar="COUNT", parser=count, help="CPU threads.")] = None,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Ask trained runs: loss by position, use of context, recall, length. Nothing is trained."""
    from windtunnel.cli.progress import evaluation_progress
    from windtunnel.evaluation.evaluate import evaluate
    from windtunnel.evaluation.registry import USUAL, parse_evaluations
    from windtunnel.evaluation.subject import subjects_of
    from windtunnel.execution import Execution

    screen = Screen(as_json)
    execution = Execution(device=device, threads=threads)
    resolved = execution.resolve()
    asked = parse_evaluations(",".join(USUAL) if tasks is None else tasks)
    if len(runs) == 1 and (Path(runs[0]) / "study.json").is_file():
        answers, files = _ask_study(Path(runs[0]), asked, execution, tuple(packages), given=bool(data))
        _finish(screen, answers, files + ([] if out is None else _write(out, answers)))
        return
    subjects = subjects_of(runs, data, text_field, resolved.device, tuple(packages))
    with resolved.applied(), evaluation_progress() as progress:
        answers = evaluate(subjects, asked, out, progress)
    _finish(screen, answers, [] if out is None else _write(out, answers))


def _ask_study(
    folder: Path, asked: "Sequence[Evaluation]", execution: "Execution", packages: tuple[str, ...], given: bool
) -> "tuple[Answers, list[Path]]":
    """Ask a study's runs; its results and its report are made again with the answers."""
    from windtunnel.cli.studies import ask
    from windtunnel.comparison.asking import FILE
    from windtunnel.comparison.report import write_report
    from windtunnel.comparison.results import assemble
    from windtunnel.comparison.study import load_study
    from windtunnel.errors import InputError

    if given:
        raise InputError(
            "--data: a study's runs are asked about the text that the study held out; leave it out, or name run folders"
        )
    answers = ask(load_study(folder, packages)[0], folder, asked, execution)
    return answers, [write_report(assemble(folder, packages), folder), folder / FILE]


def _finish(screen: Screen, answers: "Answers", files: list[Path]) -> None:
    if screen.as_json:
        screen.finish({**answers.to_json(), "files": [str(file) for file in files]})
    else:
        _print(screen, answers, files)


def _write(out: Path, answers: "Answers") -> list[Path]:
    from windtunnel.checkpoint import write_json
    from windtunnel.evaluation.page import render
    from windtunnel.report import write_page

    page = write_page(out / "evaluation.html", render(answers))
    write_json(out / "evaluation.json", answers.to_json())
    return [page, out / "evaluation.json"]


def _print(screen: Screen, answers: "Answers", files: list[Path]) -> None:
    from windtunnel.evaluation.page import tables

    for table in tables(answers):
        screen.say(table.caption, style="bold")
        screen.say(table.rich(padding=(0, 1)))
        if table.note:
            screen.say(table.note)
        screen.say()
    for file in files:
        screen.say(str(file))
