"""Evaluations of a study's runs: checked before anything is trained, kept in its folder, shown in its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from windtunnel.checkpoint import read_json, write_json
from windtunnel.comparison.arm_results import reported_run
from windtunnel.comparison.study import Study
from windtunnel.errors import InputError, WorkError
from windtunnel.evaluation.base import Evaluation
from windtunnel.evaluation.evaluate import Answers, evaluate
from windtunnel.evaluation.subject import Subject, held_out
from windtunnel.evaluation.work import Report
from windtunnel.runs import Stored, find
from windtunnel.training.workload import Text

FILE = "evaluation.json"


def check_questions(study: Study, folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Refuse, with an `InputError`, what an arm of the study could not be asked once it is trained."""
    if not isinstance(study.workload, Text):
        raise InputError(
            "evaluate: a task's runs read no text, and their accuracy is in the report already; leave it out, or "
            "compare on a text"
        )
    text = held_out(study.workload.dataset)
    for arm in study.arms:
        settings = study.run_settings(arm, 1e-3, study.seeds(arm)[0])
        planned = Stored(folder / "runs" / arm.label, arm.spec, {"identity": {"settings": settings.to_json()}}, folder)
        subject = Subject(arm.label, planned, torch.device("cpu"), tuple(arm.packages), text)
        for evaluation in evaluations:
            evaluation.check(subject)


def ask(
    study: Study,
    folder: Path,
    evaluations: Sequence[Evaluation],
    device: torch.device,
    progress: Report | None = None,
) -> Answers:
    """Ask every reported run of a study, and put the answers beside the earlier ones in its `evaluation.json`.

    Raises `InputError` for what cannot be asked, `WorkError` where no run is finished.
    """
    check_questions(study, folder, evaluations)
    answers = evaluate(subjects_of_study(study, folder, device), evaluations, progress=progress)
    found = answers.to_json()
    kept = {task["task"]: task for task in asked(folder)} | {task["task"]: task for task in found["tasks"]}
    write_json(folder / FILE, {**found, "tasks": list(kept.values())})
    return answers


def subjects_of_study(study: Study, folder: Path, device: torch.device) -> list[Subject]:
    """The runs that the study reports, each arm's seeds under its label, at the end of its tokens."""
    assert isinstance(study.workload, Text)
    text, found = held_out(study.workload.dataset), []
    for arm in study.arms:
        for seed in study.seeds(arm):
            run, key = reported_run(study, arm, folder / "runs" / arm.label, seed)
            result = read_json(run / "result.json") if (run / "result.json").is_file() else {"horizons": {}}
            checkpoint = result["horizons"].get(key, {}).get("checkpoint")
            if checkpoint is not None:  # a run that failed or diverged has nothing to ask
                stored = find(run, Path(checkpoint).name, tuple(arm.packages))
                found.append(Subject(arm.label, stored, device, tuple(arm.packages), text))
    if not found:
        raise WorkError(f"{folder}: no run is finished, so none can be asked")
    return found


def asked(folder: Path) -> list[Mapping[str, Any]]:
    """What a study's runs were asked, with the figures of its arms; empty where nothing was."""
    path = folder / FILE
    return list(read_json(path)["tasks"]) if path.is_file() else []
