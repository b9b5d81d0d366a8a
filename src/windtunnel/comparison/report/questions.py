"""What the study's runs were asked after they were trained: a section for each evaluation."""

import dataclasses

from windtunnel.comparison.report.reading import Study, items, mapping
from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.page import section
from windtunnel.evaluation.registry import EVALUATIONS
from windtunnel.report import Section
from windtunnel.report.figures import number_or_none
from windtunnel.spec import from_json


def question_sections(study: Study) -> list[Section]:
    """As on the page of `windtunnel evaluate`, under keys of their own."""
    found = []
    for task in map(mapping, items(study.raw.get("evaluations"))):
        if task.get("task") in EVALUATIONS:
            evaluation = from_json(dict(task["settings"]), path="evaluations")
            assert isinstance(evaluation, Evaluation)
            arms = [Arm(str(arm["label"]), (None,) * int(arm["seeds"]), dict(arm)) for arm in task["arms"]]
            shown = section(evaluation, arms, number_or_none(task.get("chance")))
            found.append(dataclasses.replace(shown, key=f"asked-{shown.key}"))
    return found
