"""Evidence in the fits of `windtunnel fit`: the compute that an arm saves, and whether its loss is a power law."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from windtunnel.claims.claim import Evidence
from windtunnel.claims.filed import Filed
from windtunnel.claims.studies import Reader
from windtunnel.report.figures import counted, fixed


def saving(variant: str, baseline: str) -> Reader:
    """Reads how many times less compute an arm needs for the baseline's loss, at the largest compute of both."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if filed.fits.get("baseline") != baseline or variant not in filed.fits["multipliers"]:
            return
        found = filed.fits["multipliers"][variant]
        at = found["at"]["largest"]
        low, high = at["ci95"]
        yield Evidence(
            value=at["value"],
            low=low,
            high=high,
            shown=f"{fixed(at['value'])} [{fixed(low)}, {fixed(high)}]",
            setting=_setting(filed.fits["arms"][variant], f"at {at['compute']:.2g} FLOPs"),
            doubts=tuple(found["reasons"]),
        )

    return read


def held_out_error(arm: str) -> Reader:
    """Reads how far off the power law L(C) of an arm is where it predicts the largest budget without having seen it."""

    def read(filed: Filed) -> Iterator[Evidence]:
        fits = filed.fits.get("arms", {})
        if arm not in fits:
            return
        law = fits[arm]["loss_of_compute"]
        error = abs(law["held_out"]["error"])
        low, high = law["gamma"]["ci95"]
        yield Evidence(
            value=error,
            low=error,
            high=error if law["claim"] else math.inf,
            shown=f"{100 * error:.2f} % of the loss; exponent {law['gamma']['value']:.2f} [{low:.2f}, {high:.2f}]",
            setting=_setting(fits[arm], f"over {fits[arm]['span']:.3g}x of compute"),
            doubts=tuple(law["reasons"]),
        )

    return read


def _setting(arm: Mapping[str, Any], where: str) -> str:
    sizes = arm["runs"]["parameters"]
    return f"{len(sizes)} runs, {counted(min(sizes))} to {counted(max(sizes))} parameters with the head, {where}"
