"""What a run is: budget, optimiser and schedule. Everything here is part of the run's identity."""

import functools
import math
from typing import Literal

from windtunnel.data.mixture import Share
from windtunnel.spec import Spec, nearest
from windtunnel.training import ramp
from windtunnel.training.optimisers import OPTIMISERS
from windtunnel.training.spikes import Spikes

BATCH_SIZE = 16  # where nobody says otherwise
# Settings that one schedule alone reads; elsewhere they must stay at their defaults.
_SCHEDULES_OF = {"flat": ("cosine",), "constant": ("rsqrt",), "cooldown": ("wsd", "rsqrt")}


class TrainingSettings(Spec):
    """A training run as a value: the weights are a pure function of (spec, settings, data).

    tokens:        budget D of the longest horizon, rounded to whole steps.
    batch_size:    sequences an optimiser step; `accumulation` cuts it into equal micro-batches (same data; results
                   differ by rounding only).
    ramp:          stages of smaller batches, as (share of batch_size, share of the steps until which it holds);
                   micro-batches keep their size. PaLM's is ((1/4, 0.196), (1/2, 0.451)).
    optimiser:     one of `OPTIMISERS`, which says what each reads of betas, eps and weight_decay.
    schedule:      "wsd" warms up, stays constant, falls linearly over the last `cooldown` share of a horizon;
                   "cosine" falls over everything after the warm-up but the last `flat` share of the steps; "rsqrt" is
                   PaLM's: constant for the first `constant` share of the steps, then falling with 1/sqrt(step), and
                   linearly too where there is a cooldown. Cooldown and cosine end at `floor` times the learning rate.
    warmup:        share of D's steps, also for shorter horizons, since they branch off one trunk.
    clip:          the gradients' largest global norm. z_loss: the weight of (log Z)² beside the cross-entropy, which
                   is reported without it (PaLM: 1e-4).
    spikes:        when to go back and pass over data; None: never.
    skips:         data to pass over, as (FROM, TO): after FROM steps, the batches of TO - FROM steps.
    horizons:      fractions of D at which a fully decayed run is evaluated (not for cosine; the last is always 1).
    evaluation_tokens: held-out tokens scored at each horizon; None takes all.
    mixture:       the sets of the data and their weights; () takes all of the data as it lies.
    """

    tokens: int
    context: int
    batch_size: int
    learning_rate: float
    accumulation: int = 1
    ramp: tuple[tuple[float, ...], ...] = ()
    optimiser: str = "adamw"
    schedule: Literal["wsd", "cosine", "rsqrt"] = "wsd"
    warmup: float = 0.03
    cooldown: float = 0.2
    flat: float = 0.0
    constant: float = 0.3
    floor: float = 0.0
    weight_decay: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float | None = 1.0
    z_loss: float = 0.0
    spikes: Spikes | None = None
    skips: tuple[tuple[int, ...], ...] = ()
    seed: int = 0
    data_seed: int = 0
    horizons: tuple[float, ...] = (1.0,)
    evaluation_tokens: int | None = None
    mixture: tuple[Share, ...] = ()

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimiser step of full size."""
        return self.batch_size * self.context

    @property
    def steps(self) -> int:
        """Optimiser steps of the longest horizon."""
        return round(self.tokens / (self.step_tokens * ramp.mean_share(self.ramp)))

    @property
    def warmup_steps(self) -> int:
        return round(self.warmup * self.steps)

    @property
    def sequences(self) -> int:
        """Sequences of the longest horizon."""
        return self.sequences_before(self.steps)

    def batch_at(self, step: int) -> int:
        """Sequences of step 0, 1, ..."""
        return ramp.stage_at(_stages(self), step).batch_size if self.ramp else self.batch_size

    def sequences_before(self, step: int) -> int:
        """Sequences that the steps before this one are trained on."""
        return ramp.stage_at(_stages(self), step).at(step) if self.ramp else step * self.batch_size

    def sequences_at(self, step: int) -> range:
        """Which sequences of the data's order a step is trained on, if none but `skips` are passed over."""
        passed = sum(self.sequences_in(start, stop) for start, stop in self.skips if start <= step)
        first = passed + self.sequences_before(step)
        return range(first, first + self.batch_at(step))

    def sequences_in(self, start: int, stop: int) -> int:
        """Sequences of the steps from `start` to before `stop`."""
        return self.sequences_before(stop) - self.sequences_before(start)

    def tokens_before(self, step: int) -> int:
        """Tokens that the steps before this one are trained on."""
        return self.sequences_before(step) * self.context

    @property
    def rewind_steps(self) -> int:
        """How far apart the checkpoints are to which a spike leads back; 0 where spikes are not watched for."""
        return 0 if self.spikes is None else self.spikes.rewind_steps(self.steps)

    @property
    def skip_steps(self) -> int:
        """The least number of batches passed over after a spike."""
        return 0 if self.spikes is None else self.spikes.skip_steps(self.steps)

    def horizon_steps(self, horizon: float) -> int:
        """Optimiser steps of the run that ends at this fraction of the budget."""
        return ramp.step_at(_stages(self), horizon) if self.ramp else round(horizon * self.steps)

    def cooldown_start(self, horizon: float) -> int:
        """The step at which a horizon leaves the trunk and its learning rate begins to fall (WSD)."""
        steps = self.horizon_steps(horizon)
        return steps - round(self.cooldown * steps)

    def validate(self) -> None:
        for name in ("tokens", "context", "batch_size", "accumulation"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("optimiser", self.optimiser in OPTIMISERS, "a known one" + nearest(self.optimiser, OPTIMISERS))
        self._validate_optimiser()
        self._validate_schedule()
        self._validate_budget()
        self._validate_horizons()

    def _validate_optimiser(self) -> None:
        positive = "a finite number above 0"
        self._require("learning_rate", 0 < self.learning_rate < math.inf, positive)
        self._require("eps", 0 < self.eps < math.inf, positive)
        self._require("clip", self.clip is None or 0 < self.clip < math.inf, positive + ", or None for no clipping")
        for name in ("weight_decay", "z_loss"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "a finite number of at least 0")
        whole = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        self._require("betas", whole, "two numbers from 0 to below 1")
        unread = OPTIMISERS[self.optimiser].unread
        untouched = {"eps": self.eps == _default("eps"), "betas": self.betas[1:] == TrainingSettings.betas[1:]}
        for name, why in unread.items():
            self._require(name, untouched[name], f"left at its default: {self.optimiser} {why}")
        for name in ("seed", "data_seed"):
            self._require(name, 0 <= getattr(self, name) < 2**63, "a whole number from 0 to 2^63 - 1")

    def _validate_schedule(self) -> None:
        self._require("warmup", 0 <= self.warmup < 1, "a share of the steps, from 0 to below 1")
        self._require("cooldown", 0 <= self.cooldown <= 1, "a share of the steps, from 0 to 1")
        self._require("floor", 0 <= self.floor <= 1, "a share of the learning rate, from 0 to 1")
        self._require("constant", 0 < self.constant <= 1, "a share of the steps, above 0 and at most 1")
        self._require("flat", 0 <= self.flat < 1, "a share of the steps, from 0 to below 1")
        self._require("flat", self.warmup + self.flat < 1, f"below 1 together with warmup={self.warmup}")
        for name, schedules in _SCHEDULES_OF.items():
            read = self.schedule in schedules or getattr(self, name) == _default(name)
            allowed = f"left at {_default(name)}: the schedule {self.schedule!r} does not read it"
            self._require(name, read, allowed)

    def _validate_budget(self) -> None:
        self._require(
            "batch_size", self.batch_size % self.accumulation == 0, f"a multiple of accumulation={self.accumulation}"
        )
        fault = ramp.fault(self.batch_size, self.ramp, self.batch_size // self.accumulation)
        self._require("ramp", fault is None, fault or "")
        self._require(
            "tokens", self.tokens >= self.step_tokens, f"at least one step of {self.step_tokens} (batch_size x context)"
        )
        whole = all(len(skip) == 2 and 0 <= skip[0] < skip[1] for skip in self.skips)
        rising = whole and [start for start, _ in self.skips] == sorted({start for start, _ in self.skips})
        self._require("skips", rising, "pairs (FROM, TO) of steps, FROM before TO, in rising order of FROM")
        late = [start for start, _ in self.skips if start >= self.steps]
        self._require("skips", not late, f"of steps before the last, {self.steps}")
        names = [share.set for share in self.mixture]
        self._require("mixture", len(set(names)) == len(names), "a weight for each set, once")
        enough = self.evaluation_tokens is None or self.evaluation_tokens >= 1
        self._require("evaluation_tokens", enough, "at least 1, or None for all held-out documents")

    def _validate_horizons(self) -> None:
        rising = list(self.horizons) == sorted(set(self.horizons)) and bool(self.horizons)
        good = rising and self.horizons[0] > 0 and self.horizons[-1] == 1.0
        self._require("horizons", good, "rising fractions of the budget, of which the last is 1.0")
        if self.schedule == "cosine":
            self._require(
                "horizons", len(self.horizons) == 1, "(1.0,) for the cosine schedule, whose shorter runs share no trunk"
            )
            return
        ends = [self.horizon_steps(horizon) for horizon in self.horizons]
        apart = ends[0] >= 1 and len(set(ends)) == len(ends)
        self._require("horizons", apart, f"far enough apart to differ in whole steps; {self.steps} steps give {ends}")
        first = self.cooldown_start(self.horizons[0])
        fits = self.warmup_steps <= first
        self._require(
            "warmup",
            fits,
            f"over by step {first}, where the first horizon's cooldown begins; it takes {self.warmup_steps} steps",
        )

    def _require(self, name: str, condition: bool, allowed: str) -> None:
        self.require(condition, f"{name} is {getattr(self, name)!r}; it must be {allowed}")


def _default(name: str) -> float:
    return getattr(TrainingSettings, name)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=64)
def _stages(settings: TrainingSettings) -> tuple[ramp.Stage, ...]:
    return ramp.stages(settings.batch_size, settings.ramp, settings.steps)
