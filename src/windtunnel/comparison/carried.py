"""Arms under muP: each is carried from a base width, if it passes the coordinate check over the widths in between."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from windtunnel.comparison.arms import Arm
from windtunnel.comparison.given import is_run
from windtunnel.errors import InputError
from windtunnel.training.coordinates import Plan, Result, check
from windtunnel.training.transfer import at_width, under_mup

_WIDTHS, _SEEDS = (3, 4), 2  # of the check: how many widths at least and at most, each twice the one before
_OF_THE_STUDY = ("vocab", "context", "layers", "width")


def carried(arms: Sequence[Arm], base: int | None) -> list[Arm]:
    """The arms under muP from the width `base`; as they are where there is none. Nothing is trained."""
    if base is None:
        return list(arms)
    for arm in arms:
        if is_run(arm.recipe):
            raise InputError(f"mup: arm {arm.label!r} is a run, whose sizes are given; muP carries recipes")
    return [replace(arm, spec=under_mup(arm.recipe, arm.settings, base)) for arm in arms]


def check_carried(arms: Sequence[Arm], base: int, say: Callable[[str], None] | None = None) -> None:
    """Train a few steps of every recipe over widths, and refuse the study if an arm fails, saying how."""
    done: dict[str, Result] = {}
    for arm in arms:
        plan = plan_of(arm, base)
        key = repr((plan.recipe, plan.widths, plan.settings))
        if key not in done:
            done[key] = check(plan, "mup", say)
        faults = done[key].faults
        if faults:
            raise InputError(
                f"mup: arm {arm.label!r} fails the coordinate check from width {base}: {'; '.join(faults[:2])}; leave "
                f"--mup out, or see `windtunnel coordinate-check {arm.recipe}`"
            )


def plan_of(arm: Arm, base: int) -> Plan:
    """The check of an arm: its own settings, from the base width towards its own."""
    least, most = _WIDTHS
    widths = [base * 2**k for k in range(most)]
    count = max(least, sum(width <= arm.spec.width for width in widths))
    at_base = at_width(arm.recipe, arm.settings, base)
    own: dict[str, Any] = {name: value for name, value in at_base.items() if name not in _OF_THE_STUDY}
    return Plan(arm.recipe, tuple(widths[:count]), seeds=_SEEDS, settings=own)
