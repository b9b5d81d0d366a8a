"""Evidence in results of `windtunnel compare` on text: speedups and losses of one recipe against another."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from windtunnel.claims.claim import Evidence
from windtunnel.claims.filed import Filed
from windtunnel.comparison.verdict import NO_VERDICT, PRELIMINARY
from windtunnel.report.figures import counted

Reader = Callable[[Filed], Iterator[Evidence]]
Where = Callable[[Mapping[str, Any]], bool]


def speedup(variant: str, baseline: str, track: str = "s_tok", where: Where = lambda settings: True) -> Reader:
    """Reads how many times fewer tokens (`s_flop`: FLOPs, `s_time`: seconds) a recipe needs than another.

    where: which settings of a study make it a counterpart.
    """

    def read(filed: Filed) -> Iterator[Evidence]:
        for one in compared(filed, variant, baseline):
            if where(filed.content["settings"]):
                low, high = (end for end in one[track]["ci95"])
                yield Evidence(
                    value=one[track]["value"],
                    low=0.0 if low is None else low,
                    high=math.inf if high is None else high,
                    shown=f"{one[track]['text']} (Δ {one['delta_nats']:+.3f} nats)",
                    setting=setting(filed, one),
                    grade=one["grade"],
                    doubts=doubts(one) + _unbounded(low, high),
                )

    return read


def compared(filed: Filed, variant: str, baseline: str) -> Iterator[Mapping[str, Any]]:
    """Comparisons of two recipes under their own names, without controls and without settings of an arm's own."""
    if not filed.is_study:
        return
    for one in filed.content["comparisons"]:
        if (one["variant"], one["baseline"]) == (variant, baseline) and "s_tok" in one:
            yield one


def doubts(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a comparison carries no claim, in the words of its own verdict."""
    if one["verdict"] in (NO_VERDICT, PRELIMINARY):
        return tuple(one["caps"]) or ("one seed",)
    return ()


def setting(filed: Filed, one: Mapping[str, Any]) -> str:
    """Size, budget, context, data and seeds of a comparison."""
    settings, arms = filed.content["settings"], filed.content["arms"]
    return ", ".join(
        (
            f"{counted(arms[one['variant']]['n_body'])} body parameters",
            f"{counted(settings['tokens'])} tokens",
            f"context {settings['context']}",
            f"{one['n']} seeds",
            filed.content["data"]["name"],
        )
    )


def _unbounded(low: float | None, high: float | None) -> tuple[str, ...]:
    return ("no bound on the speedup",) if low is None and high is None else ()
