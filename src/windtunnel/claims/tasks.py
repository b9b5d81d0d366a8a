"""Evidence in results of `windtunnel compare --task`: accuracy of one recipe against another on a synthetic task."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from windtunnel.claims.claim import Evidence
from windtunnel.claims.filed import Filed
from windtunnel.claims.studies import Reader, doubts
from windtunnel.report.figures import counted, fixed, signed

_FLOOR = "floor"  # the verdict where the baseline does not solve the task either


def accuracy(task: str, variant: str, baseline: str) -> Reader:
    """Reads accuracy minus the baseline's on a task, over seeds."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if not filed.is_study or not str(filed.content["data"]["name"]).startswith(f"{task} "):
            return
        for one in filed.content["comparisons"]:
            if (one["variant"], one["baseline"]) == (variant, baseline):
                low, high = one["ci95_accuracy"]
                yield Evidence(
                    value=one["delta_accuracy"],
                    low=-math.inf if low is None else low,
                    high=math.inf if high is None else high,
                    shown=_shown(filed.content["arms"], one, low, high),
                    setting=_setting(filed, one),
                    doubts=doubts(one),
                    floor=one["verdict"] == _FLOOR,
                )

    return read


def _shown(arms: Mapping[str, Any], one: Mapping[str, Any], low: float | None, high: float | None) -> str:
    """The difference, both accuracies, and when each arm had solved it."""
    ours, theirs = (arms[one[role]]["task"] for role in ("variant", "baseline"))
    both = f"{fixed(ours['accuracy']['mean'])} against {fixed(theirs['accuracy']['mean'])}"
    steps = " against ".join(_steps(each["median_steps"]) for each in (ours, theirs))
    return f"{signed(one['delta_accuracy'])} [{signed(low)}, {signed(high)}] ({both}; {steps})"


def _steps(median: float | None) -> str:
    return "not solved" if median is None else f"solved at step {median:.0f}"


def _setting(filed: Filed, one: Mapping[str, Any]) -> str:
    arms, settings = filed.content["arms"], filed.content["settings"]
    size = f"{counted(arms[one['variant']]['n_body'])} body parameters"
    return f"{filed.content['data']['name']}, {size}, {counted(settings['tokens'])} tokens, {one['n']} seeds"
