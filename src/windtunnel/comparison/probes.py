"""Probes: runs beside a study's own that ask how far its answer depends on a choice which it has to make.

`noise`: the baseline again, with the initial values of the first seed and every seed's data, and the other way round.
`batch`: every arm at half and at twice the batch, its learning rate by the square root; one rate was tuned, not three.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from windtunnel.errors import InputError
from windtunnel.spec import nearest
from windtunnel.training.settings import TrainingSettings


@dataclass(frozen=True)
class Probe:
    """One change of a reported run that ends at D. everyone: of all arms that follow the study's rules, else of the
    baseline. change: from a run's settings and the study's first seed to the probe's settings."""

    name: str
    everyone: bool
    change: Callable[[TrainingSettings, int], TrainingSettings]


def _with_batch(factor: float) -> Callable[[TrainingSettings, int], TrainingSettings]:
    def change(settings: TrainingSettings, _: int) -> TrainingSettings:
        rate = settings.learning_rate * math.sqrt(factor)
        return settings.replace(batch_size=round(settings.batch_size * factor), learning_rate=rate)

    return change


PROBES = {
    "noise": (
        Probe("data", everyone=False, change=lambda settings, first: settings.replace(seed=first)),
        Probe("initial-values", everyone=False, change=lambda settings, first: settings.replace(data_seed=first)),
    ),
    "batch": (
        Probe("half-batch", everyone=True, change=_with_batch(0.5)),
        Probe("double-batch", everyone=True, change=_with_batch(2.0)),
    ),
}


def check_probes(names: tuple[str, ...], batch_size: int, seeds: int) -> None:
    """Refuse what is no probe, and probes that the study's design cannot carry."""
    for name in names:
        if name not in PROBES:
            raise InputError(f"probe: unknown probe {name!r}{nearest(name, PROBES)}; {' or '.join(PROBES)}")
    if names and seeds < 2:
        raise InputError(f"probe: {seeds} seed has no spread to take apart; at least 2")
    if "batch" in names and batch_size % 2:
        raise InputError(f"probe: a batch of {batch_size} has no half; an even --batch")


def probe_folder(probe: Probe, seed: int) -> str:
    """The folder, in its arm's, of a probe's run."""
    return f"probe-{probe.name}/seed-{seed}"
