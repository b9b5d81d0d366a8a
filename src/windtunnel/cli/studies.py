"""A study from the command line: announced, carried out, reported."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from windtunnel.cli.progress import evaluation_progress, stage_progress
from windtunnel.cli.screen import Screen, console, table
from windtunnel.cli.study_progress import study_progress
from windtunnel.comparison import asking
from windtunnel.comparison.announcement import Bill, announcement, bill_json, estimate
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.cluster import RayPool
from windtunnel.comparison.engine import local_pool, run_study
from windtunnel.comparison.pool import Pool
from windtunnel.comparison.report import terminal_table, write_report
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.comparison.results import assemble
from windtunnel.comparison.study import Study
from windtunnel.errors import WorkError
from windtunnel.evaluation.base import Evaluation
from windtunnel.evaluation.evaluate import Answers
from windtunnel.evaluation.registry import parse_evaluations
from windtunnel.execution import Execution


class StudyInterrupted(WorkError):
    """A study was asked to stop. Whatever it finished is in its folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self.signal = number
        name = signal.Signals(number).name
        super().__init__(f"{folder}: stopped by {name}; what was finished is kept: the same command goes on")


def carry_out(request: StudyRequest, as_json: bool, evaluations: str | None = None) -> None:
    """Plan, announce, run, ask the runs what `evaluations` says, report."""
    screen = Screen(as_json)
    study, questions = _planned(request, evaluations)
    with closing(_pool(study, request)) as pool:
        for line in announcement(study, estimate(study, pool.workers)):
            screen.say(line)
        with interruptible(request.out), study_progress(study, request.out) as progress:
            results = run_study(study, request.out, progress=progress, pool=pool)
    if questions:
        execution = Execution(device=request.device)
        with interruptible(request.out):
            ask(study, request.out, questions, execution)
        results = assemble(request.out, request.packages)
    page = write_report(results, request.out)
    show_results(screen, results, page)


def _planned(request: StudyRequest, evaluations: str | None) -> tuple[Study, Sequence[Evaluation]]:
    """The study and what its runs will be asked, both checked; nothing is written."""
    questions = () if evaluations is None else parse_evaluations(evaluations, "--evaluate")
    with stage_progress("data") as prepared:
        study = plan_study(request, prepared)
    if questions:
        asking.check_questions(study, request.out, questions)
    return study, questions


def show_plan(request: StudyRequest, as_json: bool, evaluations: str | None = None) -> None:
    """The arms and the bill; nothing is trained, and the study's folder is not made."""
    screen = Screen(as_json)
    study, _ = _planned(request, evaluations)
    with closing(_pool(study, request)) as pool:
        bill = estimate(study, pool.workers)
    screen.finish(_plan_record(study, bill), _plan_table(study, bill))
    if not as_json:
        for line in [*study.ablation.get("remarks", []), *announcement(study, bill)]:
            screen.say(line)


def _plan_record(study: Study, bill: Bill) -> dict[str, Any]:
    arms = [
        {
            "label": arm.label,
            **_parts(study, arm),
            "knob": arm.matching.knob,
            "n_body": arm.matching.n_body,
            "gap": arm.matching.gap,
            "centre": study.rule(arm, 1.0).centre,
        }
        for arm in study.arms
    ]
    return {**bill_json(study, bill), **({"ablation": study.ablation} if study.ablation else {}), "arms": arms}


def _plan_table(study: Study, bill: Bill) -> Any:
    """One line an arm."""
    rows = []
    for arm in study.arms:
        parts = [", ".join(names) or "none" for names in _parts(study, arm).values()]
        turned = f"{arm.matching.knob} {arm.matching.value}" if arm.matching.value else "as it is"
        sizes = [f"{arm.matching.n_body:,}", f"{100 * arm.matching.gap:+.2f} %"]
        rate = f"{study.rule(arm, 1.0).centre:.3g}"
        rows.append([arm.label, *parts, turned, *sizes, rate, f"{bill.tokens[arm.label]:,}"])
    named = [f"parts of {study.ablation['recipe']}"] if study.ablation else []
    columns = ["arm", *named, "matched by", "active body", "gap", "rates around", "tokens"]
    return table(columns, rows, numeric=tuple(range(len(columns) - 4, len(columns))))


def _parts(study: Study, arm: Arm) -> dict[str, list[str]]:
    """Which parts of the recipe that is taken apart an arm has; nothing where arms are recipes."""
    return {"parts": arm.settings["parts"]} if study.ablation else {}


def ask(study: Study, folder: Path, questions: Sequence[Evaluation], execution: Execution) -> Answers:
    """Ask a study's runs, with the progress shown."""
    resolved = execution.resolve()
    with resolved.applied(), evaluation_progress() as progress:
        return asking.ask(study, folder, questions, resolved.device, progress)


def _pool(study: Study, request: StudyRequest) -> Pool[Any]:
    if request.cluster is None:
        return local_pool(study.device, request.workers, request.device)
    return RayPool(request.cluster, request.workers, study.device)


def show_results(screen: Screen, results: dict[str, Any], page: Path) -> None:
    """The table and where the page is, or everything as JSON."""
    screen.finish({**results, "report": str(page)}, terminal_table(results))
    if not screen.as_json:
        screen.say(f"report: {page}", whole=True)


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a `StudyInterrupted`.

    The pool lets its workers save what they are at; a second signal ends at once.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received:
            _leave(folder, number)
        received.append(number)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise StudyInterrupted(folder, received[0] if received else signal.SIGINT) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(folder: Path, number: int) -> None:
    """End without waiting: workers end with their parent, and what they saved is whole."""
    screen = console(stderr=True)
    screen.show_cursor(True)
    screen.print(f"error: {StudyInterrupted(folder, number)}", markup=False, soft_wrap=True)
    os._exit(128 + number)
