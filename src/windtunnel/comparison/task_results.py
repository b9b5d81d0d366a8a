"""What a study of a task found: accuracy, steps to solve it, and a word for each variant."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from windtunnel.comparison.arm_results import ArmRuns
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.study import Study
from windtunnel.comparison.survival import log_rank, median_step
from windtunnel.comparison.verdict import EQUIVALENT, INCONCLUSIVE, LOSES, NO_VERDICT, PRELIMINARY, WINS
from windtunnel.statistics import (
    Interval,
    equivalent,
    holm,
    mean_interval,
    paired_interval,
    paired_p_value,
    simultaneous_level,
    wilson_interval,
)

FLOOR = "floor"
SOONER, LATER = "sooner", "later"
ACCURACY_MARGIN = 0.03  # accuracies that differ by less are equivalent
_LEVEL = 0.05


def task_entry(arm: Arm, runs: ArmRuns, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is reported of an arm's runs on the task."""
    ends = [result["horizons"]["1.0"] for result in runs.results]
    solved = [end.get("solved_at") for end in ends]
    trained = [trial["accuracy"] for trial in trials if trial.get("accuracy") is not None]
    return {
        "accuracy": summary([end["accuracy"] for end in ends]),
        "whole": summary([end["whole"] for end in ends]),
        "wilson": [_wilson(end) for end in ends],
        "chance": ends[0]["chance"],
        "guess": ends[0]["guess"],
        "solved_at": solved,
        "solved": sum(step is not None for step in solved) / len(solved),
        "median_steps": median_step(solved),
        "steps": max(end["steps"] for end in ends),
        "max_over_sweep": max(trained, default=None),
        "state_bytes": state_bytes(arm, ends[0]["rungs"][0]["span"]),
        "rungs": _rungs(arm, ends),
        "aspects": {name: _aspect(name, ends) for name in ends[0]["aspects"]},
        "beyond": ends[0]["beyond"],
        "probes": _probes(ends),
    }


def compare_task(study: Study, arms: Mapping[str, Any], arm: Arm, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """A variant against the baseline, by pairs of seeds (places in their lists of runs)."""
    ours, theirs = arms[arm.label]["task"], arms[study.baseline]["task"]
    mine = [ours["accuracy"]["seeds"][i] for i, _ in pairs]
    base = [theirs["accuracy"]["seeds"][j] for _, j in pairs]
    losses = [arms[label]["loss"]["seeds"] for label in (arm.label, study.baseline)]
    nats = paired_interval([losses[0][i] for i, _ in pairs], [losses[1][j] for _, j in pairs])
    difference = paired_interval(mine, base)
    level = simultaneous_level(len(study.variants))
    return {
        "variant": arm.label,
        "baseline": study.baseline,
        "n": len(pairs),
        "delta_accuracy": difference.value,
        "ci95_accuracy": _ends(difference),
        "ci95_simultaneous": _ends(paired_interval(mine, base, level)),
        "ci90": _ends(paired_interval(mine, base, 0.9)),
        "p_value": paired_p_value(mine, base),
        "delta_nats": nats.value,
        "ci95": _ends(nats),
        "log_rank_p": log_rank(ours["solved_at"], theirs["solved_at"], theirs["steps"]),
        "untuned": [label for label in (study.baseline, arm.label) if arms[label]["untuned"]],
    }


def judged(comparisons: Sequence[dict[str, Any]], arms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Comparisons with Holm's p values and a word each."""
    soon = [one["log_rank_p"] if one["log_rank_p"] is not None else 1.0 for one in comparisons]
    found = []
    for one, p, p_soon in zip(comparisons, holm([one["p_value"] for one in comparisons]), holm(soon), strict=True):
        word, reasons = _word(one, arms, p_soon)
        found.append({**one, "p_holm": p, "log_rank_p_holm": p_soon, "verdict": word, "caps": reasons})
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, t interval over seeds, and the seeds."""
    return {"mean": float(np.mean(values)), "ci95": _ends(mean_interval(values)), "seeds": list(values)}


def state_bytes(arm: Arm, length: int) -> int:
    """What decoding one sequence of this length carries."""
    with torch.device("meta"):
        return int(arm.spec.build().state_bytes(length))


def _word(one: Mapping[str, Any], arms: Mapping[str, Any], p_soon: float) -> tuple[str, list[str]]:
    """The verdict of one variant, and why it is less than its interval says.

    A task that the baseline does not solve in most of its runs is a floor: nothing is concluded from it.
    """
    ours, theirs = arms[one["variant"]]["task"], arms[one["baseline"]]["task"]
    if theirs["solved"] <= 0.5:
        reached = f"{theirs['accuracy']['mean']:.3f} (chance {theirs['chance']:.3g})"
        return FLOOR, [f"the baseline solves it in {theirs['solved']:.0%} of its runs: {reached}"]
    word = _plain_word(one)
    if word == EQUIVALENT and p_soon < _LEVEL:
        earlier = _place(ours["median_steps"]) < _place(theirs["median_steps"])
        word = f"{EQUIVALENT}, {SOONER if earlier else LATER}"
    if one["n"] < 2:
        return NO_VERDICT, ["one seed"]
    reasons = [f"{label}: best learning rate at the edge of its sweep" for label in one["untuned"]]
    if one["n"] < 3:
        reasons.append(f"{one['n']} seeds, at least 3 are needed")
    return (PRELIMINARY if reasons and word != INCONCLUSIVE else word), reasons


def _plain_word(one: Mapping[str, Any]) -> str:
    low, high = (math.nan if end is None else end for end in one["ci95_simultaneous"])
    narrow = [math.nan if end is None else end for end in one["ci90"]]
    if equivalent(Interval(one["delta_accuracy"], *narrow), ACCURACY_MARGIN):
        return EQUIVALENT
    if low > 0:
        return WINS
    return LOSES if high < 0 else INCONCLUSIVE


def _place(step: float | None) -> float:
    return math.inf if step is None else step


def _rungs(arm: Arm, ends: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each rung over the seeds; a diverged run has the rung as trained alone, and is at chance on the others."""
    longest = max((end["rungs"] for end in ends), key=len)
    found = []
    for rung in longest:
        own = [next((one for one in end["rungs"] if one["label"] == rung["label"]), None) for end in ends]
        accuracies = [rung["chance"] if one is None else one["accuracy"] for one in own]
        wholes = [0.0 if one is None else one["whole"] for one in own]
        told = {name: rung[name] for name in ("label", "span", "chance", "guess", "items")}
        scores = {"accuracy": summary(accuracies), "whole": summary(wholes)}
        found.append({**told, **scores, "state_bytes": state_bytes(arm, rung["span"])})
    return found


def _aspect(name: str, ends: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = zip(*(end["aspects"][name] for end in ends), strict=True)
    return [
        {
            **{key: row[0][key] for key in ("from", "to", "items")},
            "accuracy": summary([one["accuracy"] for one in row]),
            "whole": summary([one["whole"] for one in row]),
        }
        for row in rows
    ]


def _probes(ends: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Accuracy on the way, seed mean and 95 % band, as far as every run came."""
    lines = [end.get("probes", []) for end in ends]
    count = min(len(line) for line in lines)
    bands = [mean_interval([line[place]["accuracy"] for line in lines]) for place in range(count)]
    ends95 = [_ends(band) for band in bands]
    return {
        "steps": [lines[0][place]["step"] for place in range(count)],
        "accuracy": [band.value for band in bands],
        "low": [low for low, _ in ends95],
        "high": [high for _, high in ends95],
    }


def _wilson(end: Mapping[str, Any]) -> list[float]:
    """95 % of the share of whole items that other items of the task would give."""
    return wilson_interval(end["whole_items"], end["items"]).ends


def _ends(interval: Interval) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in interval.ends]
