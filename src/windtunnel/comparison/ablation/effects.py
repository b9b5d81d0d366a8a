"""What each step of an ablation changed: the loss with its parts less the loss without them, paired by seed."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from windtunnel.statistics import Interval, holm, mean_interval, paired_p_value, simultaneous_level

Losses = Mapping[str, Mapping[int, float]]  # by arm and seed, at the reference horizon


def effects(ablation: Mapping[str, Any], losses: Losses, untuned: Collection[str] = ()) -> dict[str, Any]:
    """The part `ablation` of `results.json`; steps whose arms have no seed in common are left out.

    Removal: the whole recipe less the recipe without the parts. Conversion: each stage less the one before. Below 0 the
    parts help. Intervals are widened for the number of steps, p-values are Holm's. total: the recipe less what it is
    held against. cumulative: of a conversion, each stage less its beginning. untuned: arms whose best rate is at an
    edge of what was tried; an effect names those that it rests on.
    """
    steps = ablation["steps"]
    ends = _ends(ablation)
    wide = simultaneous_level(len(steps))
    found = [
        {
            **step,
            "with": one,
            "without": other,
            **_difference(losses, one, other, wide),
            "untuned": [label for label in (one, other) if label in untuned],
        }
        for step, (one, other) in zip(steps, ends, strict=True)
        if _paired(losses, one, other)
    ]
    for entry, p in zip(found, holm([entry["p"] for entry in found]), strict=True):
        entry["p_holm"] = p
    whole = ablation["recipe"] if ablation["mode"] == "remove" else steps[-1]["label"]
    against = ablation["against"]
    result = {**ablation, "effects": found}
    if _paired(losses, whole, against):
        result["total"] = _difference(losses, whole, against, 0.95)
    if ablation["mode"] == "path":
        result["cumulative"] = [
            {"label": step["label"], **_difference(losses, step["label"], against, wide)}
            for step in steps
            if _paired(losses, step["label"], against)
        ]
    return result


def _ends(ablation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For each step the arm with its parts and the arm without."""
    labels = [step["label"] for step in ablation["steps"]]
    if ablation["mode"] == "remove":
        return [(ablation["recipe"], label) for label in labels]
    return list(zip(labels, [ablation["against"], *labels[:-1]], strict=True))


def _paired(losses: Losses, one: str, other: str) -> list[int]:
    return sorted(set(losses.get(one, {})) & set(losses.get(other, {})))


def _difference(losses: Losses, one: str, other: str, wide: float) -> dict[str, Any]:
    seeds = _paired(losses, one, other)
    ours, theirs = (np.array([losses[label][seed] for seed in seeds]) for label in (one, other))
    pairs = ours - theirs
    narrow = mean_interval(pairs)
    return {
        "n": len(seeds),
        "delta": narrow.value,
        "ci95": _known(narrow),
        "ci95_simultaneous": _known(mean_interval(pairs, wide)),
        "seeds": pairs.tolist(),
        "p": paired_p_value(ours, theirs),
    }


def _known(interval: Interval) -> Sequence[float | None]:
    return [end if math.isfinite(end) else None for end in interval.ends]
