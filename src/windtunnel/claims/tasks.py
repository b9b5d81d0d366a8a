"""Evidence in results of `windtunnel compare --task`: accuracy and steps of one arm beside another's on a task."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from windtunnel.bench.spread import paired_ratio
from windtunnel.claims.claim import Evidence
from windtunnel.claims.filed import Filed
from windtunnel.claims.studies import Reader, doubts
from windtunnel.comparison.task_results import FLOOR
from windtunnel.report.figures import counted, fixed, signed
from windtunnel.statistics import paired_interval

Rung = Callable[[Mapping[str, Any]], str]
_TRAINED = "as trained"


def times_longer(times: int) -> Rung:
    """The rung of a ladder that is so many times as long as the task; from the task's settings to its label."""
    return lambda settings: f"length={times * settings['length']}"


def setting(**wanted: int) -> Rung:
    """The rung of a ladder with these settings, which is the task as trained where it has them."""

    def label(settings: Mapping[str, Any]) -> str:
        return ",".join(f"{name}={value}" for name, value in wanted.items() if settings[name] != value) or _TRAINED

    return label


def accuracy(task: str, one: str, *others: str, rung: Rung = lambda settings: _TRAINED) -> Reader:
    """Reads an arm's accuracy minus another's, seed by seed; others: labels, of which each that is there counts.

    rung: of the ladder, by the task's settings; the task as it was trained is the first one.
    """

    def read(filed: Filed) -> Iterator[Evidence]:
        if not _asks(filed, task):
            return
        label = rung(filed.content["data"]["task"])
        for other in others:
            ours, theirs = (_accuracies(filed, arm, label) for arm in (one, other))
            if ours and theirs and len(ours) == len(theirs):
                found = paired_interval(ours, theirs)
                low, high = found.ends
                means = f"{fixed(sum(ours) / len(ours))} against {fixed(sum(theirs) / len(theirs))}"
                yield Evidence(
                    value=found.value,
                    low=low,
                    high=high,
                    shown=f"{signed(found.value)} [{_end(low)}, {_end(high)}] ({means}; {_learned(filed, one, other)})",
                    setting=_setting(filed, one, other, label),
                    **_limits(filed, one, other),
                )

    return read


def steps(task: str, one: str, *others: str) -> Reader:
    """Reads how many times the steps of another an arm takes to solve a task; runs that do not solve it bound it."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if not _asks(filed, task):
            return
        for other in others:
            if one in filed.content["arms"] and other in filed.content["arms"]:
                yield _steps_evidence(filed, one, other)

    return read


def solved(task: str, label: str) -> Reader:
    """Reads an arm's accuracy alone."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if _asks(filed, task) and label in filed.content["arms"]:
            found = filed.content["arms"][label]["task"]["accuracy"]
            low, high = (-math.inf, math.inf) if None in found["ci95"] else found["ci95"]
            yield Evidence(
                value=found["mean"],
                low=low,
                high=high,
                shown=f"{fixed(found['mean'])} [{_end(low)}, {_end(high)}]",
                setting=_setting(filed, label, label, _TRAINED),
                **_limits(filed, label, label),
            )

    return read


def _asks(filed: Filed, task: str) -> bool:
    return filed.is_study and str(filed.content["data"]["name"]).startswith(f"{task} ")


def _accuracies(filed: Filed, label: str, rung: str) -> list[float]:
    """One a seed; empty where the arm or the rung is not there."""
    rungs = filed.content["arms"].get(label, {}).get("task", {}).get("rungs", ())
    return next((list(one["accuracy"]["seeds"]) for one in rungs if one["label"] == rung), [])


def _steps_evidence(filed: Filed, one: str, other: str) -> Evidence:
    """Runs that did not solve it count as the budget, and leave the ratio open on their side."""
    tasks = [filed.content["arms"][label]["task"] for label in (one, other)]
    budget = tasks[0]["steps"]
    ours, theirs = ([budget if step is None else step for step in task["solved_at"]] for task in tasks)
    found = paired_ratio(ours, theirs)
    censored = None in tasks[0]["solved_at"]
    low = 0.0 if None in tasks[1]["solved_at"] else found.low
    high = math.inf if censored else found.high
    shown = f"at least {fixed(found.value)}" if censored else f"{fixed(found.value)}"
    return Evidence(
        value=None if censored else found.value,
        low=low,
        high=high,
        shown=f"{shown} [{_end(low, fixed)}, {_end(high, fixed)}] ({_learned(filed, one, other)})",
        setting=_setting(filed, one, other, _TRAINED),
        **_limits(filed, one, other),
    )


def _limits(filed: Filed, *labels: str) -> dict[str, Any]:
    """Whether this is a floor, and why nothing may be concluded, by the verdicts on the arms in question."""
    content = filed.content
    known = [one for one in content["comparisons"] if one["variant"] in labels]
    told = dict.fromkeys(reason for one in known for reason in doubts(one))
    return {"floor": any(one["verdict"] == FLOOR for one in content["comparisons"]), "doubts": tuple(told)}


def _learned(filed: Filed, *labels: str) -> str:
    medians = (filed.content["arms"][label]["task"]["median_steps"] for label in labels)
    return " against ".join("not solved" if step is None else f"solved at step {step:.0f}" for step in medians)


def _setting(filed: Filed, one: str, other: str, rung: str) -> str:
    arms, settings = filed.content["arms"], filed.content["settings"]
    return ", ".join(
        (
            filed.content["data"]["name"] + ("" if rung == _TRAINED else f", asked at {rung}"),
            one if one == other else f"{one} against {other}",
            f"{counted(arms[one]['n_body'])} body parameters",
            f"{counted(settings['tokens'])} tokens",
            f"{len(settings['seeds'])} seeds",
        )
    )


def _end(end: float, form: Callable[[float], str] = signed) -> str:
    return form(end) if math.isfinite(end) else "∞" if end > 0 else "-∞"
