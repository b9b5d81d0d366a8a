"""Learning-rate schedules, and the order in which trunk and cooldown branches are trained."""

import math
from typing import NamedTuple

from windtunnel.training.settings import TrainingSettings


class Segment(NamedTuple):
    """Steps `start` to `stop` of one schedule.

    horizon: the fraction of the budget whose decayed run this segment completes; None on the trunk.
    branch:  whether the trunk's state comes back afterwards.
    """

    start: int
    stop: int
    horizon: float | None
    branch: bool


def segments(settings: TrainingSettings) -> tuple[Segment, ...]:
    """The whole run in order. A horizon leaves the trunk at its cooldown and, unless it is the last, returns to it.

    One trunk serves every horizon (Hägele et al. 2024, arXiv 2405.18392): h of them cost D plus their cooldowns.
    """
    if settings.schedule == "cosine":
        return (Segment(0, settings.steps, 1.0, branch=False),)
    planned: list[Segment] = []
    position = 0
    for horizon in settings.horizons:
        leave = settings.cooldown_start(horizon)
        if leave > position:
            planned.append(Segment(position, leave, None, branch=False))
        planned.append(Segment(leave, settings.horizon_steps(horizon), horizon, branch=horizon < 1.0))
        position = leave
    return tuple(planned)


def learning_rate(settings: TrainingSettings, step: int, horizon: float | None) -> float:
    """The learning rate of step 0, 1, ...; `horizon` None means the trunk.

    Warm-up over w steps: (step + 1) / w. WSD's cooldown over the last c of n steps: (n - step) / c, from 1 to 1/c, so
    that it would be 0 at step n. Cosine: (1 + cos(pi (step - w) / (n - w))) / 2, n less the flat steps. Reciprocal
    square root (PaLM section 5): sqrt(k0 / max(k, k0)) with k = step + 1, k0 the constant steps, times the cooldown.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    rate = settings.learning_rate * _trunk(settings, step)
    if horizon is None:
        return rate
    return rate * (settings.floor + (1 - settings.floor) * _decay(settings, step, horizon))


def _trunk(settings: TrainingSettings, step: int) -> float:
    if settings.schedule != "rsqrt":
        return 1.0
    constant = settings.constant * settings.steps
    return math.sqrt(constant / max(step + 1, constant))


def _decay(settings: TrainingSettings, step: int, horizon: float) -> float:
    steps = settings.horizon_steps(horizon)
    if settings.schedule == "cosine":
        falling = steps - round(settings.flat * steps) - settings.warmup_steps
        share = min(1.0, (step - settings.warmup_steps) / max(falling, 1))
        return (1 + math.cos(math.pi * share)) / 2
    start = settings.cooldown_start(horizon)
    return 1.0 if step < start else (steps - step) / (steps - start)
