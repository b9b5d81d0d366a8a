"""The page of an evaluation: a section for each question, one file that opens from disk."""

from collections.abc import Sequence

from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.evaluate import Answers
from windtunnel.report import Facts, Prose, Section, Table, page
from windtunnel.report.figures import fixed, plain


def render(answers: Answers) -> str:
    """The page; the same figures give the same text."""
    sections = [
        section(evaluation, answers.arms(evaluation), evaluation.chance(answers.subjects[0]))
        for evaluation in answers.evaluations
    ]
    labels = list(dict.fromkeys(subject.label for subject in answers.subjects))
    return page(
        "An evaluation",
        [*sections, _runs(answers)],
        kicker="windtunnel evaluate",
        summary=f"{', '.join(labels)} on {answers.subjects[0].heldout.name}.",
        footer="Models were only asked; nothing was trained. Intervals are of 95 %.",
    )


def tables(answers: Answers) -> list[Table]:
    """The sections' tables, for terminals."""
    return [
        part
        for evaluation in answers.evaluations
        for part in evaluation.parts(answers.arms(evaluation))
        if isinstance(part, Table)
    ]


def section(evaluation: Evaluation, arms: Sequence[Arm], chance: float | None) -> Section:
    """What was found by one question, with what a reader has to know of it."""
    return Section(
        key=evaluation.name,
        title=evaluation.title,
        lead=evaluation.lead,
        parts=[*evaluation.parts(arms), Prose([footer(evaluation, arms, chance)])],
    )


def footer(evaluation: Evaluation, arms: Sequence[Arm], chance: float | None) -> str:
    """What a reader has to know of a section's figures: seeds, chance, settings."""
    most = max(len(arm.seeds) for arm in arms)
    seeds = f"{most} seeds an arm" if most > 1 else "one seed an arm: intervals do not speak of other seeds"
    guess = "" if chance is None else f" Guessing evenly: {_small(chance)} {evaluation.unit}."
    settings = {name: value for name, value in evaluation.to_json().items() if name != "kind" and value is not None}
    told = f" Settings: {plain(settings)}." if settings else ""
    return f"{seeds[0].upper()}{seeds[1:]}.{guess}{told}"


def _small(chance: float) -> str:
    """Three decimals, or three digits where those would show nothing."""
    return fixed(chance) if chance >= 0.001 else f"{chance:.1e}"


def _runs(answers: Answers) -> Section:
    rows = [
        [
            subject.label,
            str(subject.folder),
            plain(subject.seed),
            f"{subject.trained:,}",
            f"{subject.context:,}",
            subject.weights[:12],
            subject.spec.fingerprint()[:12],
        ]
        for subject in answers.subjects
    ]
    columns = ("arm", "run", "seed", "trained at", "context", "weights", "spec")
    text = answers.subjects[0].heldout
    facts = [("text", text.name), ("tokenizer", text.tokenizer.label), ("its hash", text.fingerprint[:16])]
    table = Table(caption="Runs", columns=columns, rows=rows, numeric=(2, 3, 4))
    return Section(key="runs", title="Runs and text", parts=[table, Facts(facts=facts)])
