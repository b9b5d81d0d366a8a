"""Loss spikes: told from ordinary noise, and what a run does about them (PaLM, arXiv 2204.02311, section 5.1).

PaLM went back to a checkpoint about 100 steps before a spike and passed over 200 to 500 batches, those before and
during it; the spike did not come again. Both the judgement and the way back depend on losses and step numbers alone, so
a run that is killed and resumed takes the same decisions.
"""

import math
import statistics
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from windtunnel.spec import Spec

NEARBY = 8  # steps within which suspicious ones count together
_DEVIATION = 1.4826 / math.sqrt(2)  # standard deviations of normal noise in the median of |one - the next|
_LEAST_LOSS, _LEAST_NORM = 0.02, 0.1  # the least deviation taken for noise: nats, and the logarithm of a norm
_REWIND, _LEAST_REWIND, _SHARE = 100, 8, 20


class Spikes(Spec):
    """When a loss counts as a spike, and how far a run goes back.

    threshold: how many deviations above the median of the last `history` ordinary steps a loss, or the logarithm of a
               gradient norm, is suspicious. The deviation is 1.4826 x the median absolute difference between one step
               and the next, over sqrt(2): that of the noise alone, however fast the loss falls.
    confirm:   suspicious steps within 8 that make a spike; what is not finite is one at once.
    rewind:    steps to go back before the spike, at least, and how far apart the checkpoints for it are; None is a
               twentieth of the run, from 8 to PaLM's 100.
    skip:      batches to pass over from there, at least all that were seen; None is three times `rewind`.
    tries:     rewinds of a run; after these it goes on whatever comes.
    """

    threshold: float = 10.0
    history: int = 64
    confirm: int = 3
    rewind: int | None = None
    skip: int | None = None
    tries: int = 5

    def validate(self) -> None:
        self.require(self.threshold > 0, f"threshold is {self.threshold}; it must be above 0")
        self.require(self.history >= 16, f"history is {self.history}; it must be at least 16 steps")
        self.require(1 <= self.confirm <= NEARBY, f"confirm is {self.confirm}; it must be from 1 to {NEARBY} steps")
        for name in ("rewind", "skip", "tries"):
            value = getattr(self, name)
            self.require(value is None or value >= 1, f"{name} is {value}; it must be at least 1")

    def rewind_steps(self, steps: int) -> int:
        """Steps between the checkpoints of a run of so many steps."""
        return self.rewind or min(_REWIND, max(_LEAST_REWIND, steps // _SHARE))

    def skip_steps(self, steps: int) -> int:
        """The least number of batches passed over in a run of so many steps."""
        return self.skip or 3 * self.rewind_steps(steps)


@dataclass
class Detector:
    """What is remembered of the losses so far. onset: the step, from 1, at which a spike began; it stops the watch."""

    onset: int | None = None
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    suspects: list[int] = field(default_factory=list)

    def observe(self, spikes: Spikes, step: int, loss: float, norm: float) -> None:
        """Take note of a step's loss in nats and gradient norm; suspicious steps do not join the history."""
        if self.onset is not None:
            return
        self.suspects = [suspect for suspect in self.suspects if suspect > step - NEARBY]
        finite = math.isfinite(loss) and math.isfinite(norm)
        size = math.log(max(norm, 1e-30)) if finite else math.inf
        if finite and not (
            _far_above(self.losses, loss, _LEAST_LOSS, spikes) or _far_above(self.norms, size, _LEAST_NORM, spikes)
        ):
            self.losses = [*self.losses, loss][-spikes.history :]
            self.norms = [*self.norms, size][-spikes.history :]
            return
        self.suspects.append(step)
        if not finite or len(self.suspects) >= spikes.confirm:
            self.onset = self.suspects[0]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _far_above(history: list[float], value: float, least: float, spikes: Spikes) -> bool:
    """Whether a value stands out from at least a quarter of a full history."""
    if len(history) < spikes.history // 4:
        return False
    deviation = _DEVIATION * statistics.median(abs(after - before) for before, after in pairwise(history))
    return value > statistics.median(history) + spikes.threshold * max(deviation, least)


def is_milestone(start: int, step: int, rewind: int) -> bool:
    """Whether a segment that begins at `start` keeps a checkpoint at `step` to go back to."""
    return step == start or step % rewind == 0


def milestone(start: int, onset: int, rewind: int) -> int:
    """The checkpoint for a spike that began in step `onset`: the last at least `rewind` steps before, or the first."""
    return max(start, (onset - 1 - rewind) // rewind * rewind)
