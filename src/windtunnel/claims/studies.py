"""Evidence in results of `windtunnel compare` on text: speedups and losses of one recipe against another."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from windtunnel.claims.claim import Evidence
from windtunnel.claims.filed import Filed
from windtunnel.comparison.headline import NAMES
from windtunnel.comparison.verdict import INCONCLUSIVE, NO_VERDICT, PRELIMINARY
from windtunnel.report.figures import counted

Reader = Callable[[Filed], Iterator[Evidence]]
Where = Callable[[Mapping[str, Any]], bool]


def speedup(variant: str, baseline: str, track: str = "iso_token", where: Where = lambda settings: True) -> Reader:
    """Reads how many times fewer tokens (`iso_flop`: FLOPs, `iso_time`: seconds) a recipe needs than another.

    where: which settings of a study make it a counterpart. A study's verdict allows for all its arms at once, the 95 %
    interval of one speedup does not: where the verdict is inconclusive the interval that is judged reaches 1.
    """

    def read(filed: Filed) -> Iterator[Evidence]:
        for one in compared(filed, variant, baseline):
            if where(filed.content["settings"]):
                ours = one[NAMES[track]]
                low, high = ours["ci95"]
                reach = [1.0] if one["tracks"].get(track) == INCONCLUSIVE else []
                yield Evidence(
                    value=ours["value"],
                    low=min([0.0 if low is None else low, *reach]),
                    high=max([math.inf if high is None else high, *reach]),
                    shown=f"{ours['text']} (Δ {one['delta_nats']:+.3f} nats)",
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
