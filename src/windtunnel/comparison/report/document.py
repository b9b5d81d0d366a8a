"""The page: which sections, in which order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windtunnel.comparison.report import wording
from windtunnel.comparison.report.ablation import ablation_section
from windtunnel.comparison.report.accuracy import is_task, task_sections
from windtunnel.comparison.report.costs import cost_section, pareto_section
from windtunnel.comparison.report.evidence import caveats_section, equal_section, machine_section
from windtunnel.comparison.report.glossary import glossary_section
from windtunnel.comparison.report.headline import seeds_section, verdict_section
from windtunnel.comparison.report.losses import loss_section
from windtunnel.comparison.report.minimality import minimality_section, settings_section
from windtunnel.comparison.report.numbers import numbers_section
from windtunnel.comparison.report.probes import probes_section
from windtunnel.comparison.report.questions import question_sections
from windtunnel.comparison.report.reading import Study, items, read
from windtunnel.comparison.report.sweeps import sweep_section
from windtunnel.report import Section, figures, page, write_page

FILE = "report.html"


def write_report(results: Mapping[str, Any], folder: Path) -> Path:
    """Writes report.html into the study's folder, atomically, and returns its path."""
    return write_page(Path(folder) / FILE, render_report(results))


def render_report(results: Mapping[str, Any]) -> str:
    """The report as one self-contained page: the same results give the same text."""
    study = read(results)
    sections = [
        ablation_section(study),
        *_answer(study),
        cost_section(study),
        *question_sections(study),
        minimality_section(study),
        settings_section(study),
        equal_section(study),
        caveats_section(study),
        *([] if is_task(study) else [numbers_section(study), glossary_section()]),
        machine_section(study),
    ]
    shown = [section for section in sections if section is not None]
    return page(study.title, shown, kicker=_kicker(study), summary=_summary(study), footer=_footer(study))


def _answer(study: Study) -> list[Section | None]:
    """What was found: loss and speedups of a text, accuracy and steps of a task."""
    if is_task(study):
        return [*task_sections(study), sweep_section(study)]
    return [
        verdict_section(study),
        loss_section(study),
        seeds_section(study),
        probes_section(study),
        sweep_section(study),
        pareto_section(study),
    ]


def _kicker(study: Study) -> str:
    seeds = len(items(study.part("settings").get("seeds")))
    parts = [
        f"{study.raw['preset']} preset" if study.raw.get("preset") else "",
        f"{seeds} seed{'s' if seeds > 1 else ''}" if seeds else "",
        f"{study.part('data')['name']}" if study.part("data").get("name") else "",
        str(study.raw.get("created") or "")[:10],
    ]
    return " · ".join(part for part in parts if part)


def _summary(study: Study) -> str:
    """The study in two sentences: what was compared on what, and each arm's word."""
    base, tokens = study.baseline, study.number("settings", "tokens")
    if base is None:
        return ""
    length = figures.counted(tokens)
    trained = f", each trained on {length} tokens" if tokens else ""
    compared = [one for arm in wording.ranked(study) if (one := study.comparison(arm))]
    words = [f"{one.variant.name}: {one.verdict}" for one in compared]
    failed = [f"{arm.name}: failed" for arm in study.arms if arm.failed]
    compared_on = f"{len(study.arms)} architectures of {_sizes(study)} body parameters{trained}, against {base.label}."
    return f"{compared_on} {'; '.join([*words, *failed])}."


def _sizes(study: Study) -> str:
    """About how many, or from how many to how many where a study has arms of several sizes."""
    counts = [count for arm in study.arms if (count := arm.number("n_body"))]
    least, most = min(counts, default=None), max(counts, default=None)
    if least is None or most is None or most <= 1.05 * least:
        return f"about {figures.counted(most)}"
    return f"{figures.counted(least)} to {figures.counted(most)}"


def _footer(study: Study) -> str:
    version = study.part("versions").get("windtunnel")
    return (
        f"Windtunnel{f' {version}' if version else ''} · study {study.raw.get('study', '')} · everything here can "
        "be recomputed from results.json"
    )
