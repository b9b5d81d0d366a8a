"""Evaluations of runs, carried out: everything checked first, figures read back where they are kept."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError
from windtunnel.evaluation.base import Arm, Evaluation, record
from windtunnel.evaluation.estimates import Figures, pooled
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Meter, Report, Work
from windtunnel.runs import Run
from windtunnel.version import VERSION

FOLDER = "evaluations"


@dataclass(frozen=True)
class Answers:
    """Figures of every evaluation [e] for every subject [s]: figures[e][s]."""

    evaluations: tuple[Evaluation, ...]
    subjects: tuple[Subject, ...]
    figures: tuple[tuple[Figures, ...], ...]

    def arms(self, evaluation: Evaluation) -> list[Arm]:
        """Subjects of one label together, in the order in which labels were named."""
        given = self.figures[self.evaluations.index(evaluation)]
        labels = dict.fromkeys(subject.label for subject in self.subjects)
        found = []
        for label in labels:
            places = [place for place, subject in enumerate(self.subjects) if subject.label == label]
            together = pooled([given[place] for place in places])
            seeds = tuple(self.subjects[place].seed for place in places)
            found.append(Arm(label, seeds, {**together, **evaluation.derived(together)}))
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything that the page shows, and the figures of each run."""
        return {
            "windtunnel": VERSION,
            "text": self._text(),
            "runs": [self._run(subject) for subject in self.subjects],
            "tasks": [self._task(evaluation) for evaluation in self.evaluations],
        }

    def _text(self) -> dict[str, Any]:
        text = self.subjects[0].heldout
        return {"name": text.name, "fingerprint": text.fingerprint, "tokenizer": text.tokenizer.label}

    def _run(self, subject: Subject) -> dict[str, Any]:
        return {
            "label": subject.label,
            "folder": str(subject.folder),
            "seed": subject.seed,
            "weights": subject.weights,
            "fingerprint": subject.spec.fingerprint(),
            "trained": subject.trained,
            "context": subject.context,
        }

    def _task(self, evaluation: Evaluation) -> dict[str, Any]:
        given = self.figures[self.evaluations.index(evaluation)]
        arms = self.arms(evaluation)
        return {
            **record(evaluation),
            "chance": evaluation.chance(self.subjects[0]),
            "unit": evaluation.unit,
            "arms": [{"label": arm.label, "seeds": len(arm.seeds), **arm.figures} for arm in arms],
            "compared": evaluation.compared(arms),
            "runs": list(given),
        }


def evaluate(
    subjects: Sequence[Subject],
    evaluations: Sequence[Evaluation],
    keep: Path | None = None,
    progress: Report | None = None,
) -> Answers:
    """Ask every run every question.

    Figures are kept in each run's folder by (weights, question, settings, text), part by part, so that interrupted work
    goes on and finished work is not done again. keep: a folder for them where a run's own cannot be written to.
    Raises `InputError` before any work starts if a question cannot be put to a run.
    """
    for subject in subjects:
        for evaluation in evaluations:
            evaluation.check(subject)
    places = [_place(subject, keep) for subject in subjects]
    counts = [[evaluation.tokens(subject) for evaluation in evaluations] for subject in subjects]
    meter = Meter(sum(map(sum, counts)), progress)
    rows = []
    for subject, place, tokens in zip(subjects, places, counts, strict=True):
        works = [_work(subject, evaluation, place, meter) for evaluation in evaluations]
        run: Run | None = None
        row = []
        for evaluation, work, count in zip(evaluations, works, tokens, strict=True):
            meter.what = f"{subject.label}: {evaluation.name}"
            if work.figures is None:
                run = run or subject.load()
                before = meter.done
                row.append(work.finish(evaluation.measure(run, subject, work)))
                meter.read(before + count - meter.done)
            else:
                meter.skip(count)
                row.append(work.figures)
        rows.append(row)
    return Answers(tuple(evaluations), tuple(subjects), tuple(zip(*rows, strict=True)))


def _place(subject: Subject, keep: Path | None) -> Path:
    if os.access(subject.folder, os.W_OK):
        return subject.folder / FOLDER
    if keep is None:
        raise InputError(f"{subject.folder}: cannot be written to, and figures are kept there; name --out FOLDER")
    return keep / FOLDER


def _work(subject: Subject, evaluation: Evaluation, place: Path, meter: Meter) -> Work:
    about = {
        "windtunnel": VERSION,
        "version": evaluation.version,
        "weights": subject.weights,
        "spec": subject.spec.fingerprint(),
        "trained": subject.trained,
        "context": subject.context,
        "task": record(evaluation),
        "text": subject.heldout.fingerprint,
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    return Work(place / f"{evaluation.name}-{key}.json", about, meter)
