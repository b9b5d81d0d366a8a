"""What a ladder costs: its FLOPs by what they are for, and hours by rates that are measured on this machine."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from windtunnel.comparison.ladders.ladder import Ladder, Rung
from windtunnel.comparison.throughput import seconds_a_step
from windtunnel.training.progress import duration

OVERHEAD = 1.12  # evaluation, checkpoints, starting and waiting for workers
EXTRA_TRIALS = 1  # beyond the edge of an average sweep's grid
_TIMED_FLOPS = 1e11  # of a step on a CPU: larger ones are timed on fewer sequences


@dataclass(frozen=True)
class Bill:
    """Expected cost. flops, seconds: by phase, on one worker; a_token: seconds of training by arm and size."""

    flops: dict[str, float]
    seconds: dict[str, float]
    a_token: dict[tuple[str, int], float]
    workers: int

    @property
    def wall(self) -> float:
        """Seconds with all workers side by side."""
        return sum(self.seconds.values()) / self.workers * OVERHEAD

    def to_json(self) -> dict[str, Any]:
        """Phases, and the whole."""
        return {
            "flops": self.flops,
            "worker_seconds": self.seconds,
            "workers": self.workers,
            "expected_seconds": self.wall,
            "expected": duration(self.wall),
        }


def planned(ladder: Ladder) -> dict[str, list[Rung]]:
    """Every run of each phase: a rung once for each trial or seed."""
    design = ladder.design
    trials = design.trials + min(design.edge_cap, EXTRA_TRIALS) + 2 * design.refine
    budgets = range(len(design.budgets))
    return {
        "sweeps": [rung for arm in ladder.labels for rung in ladder.sweeps(arm) for _ in range(trials)],
        "check": [ladder.check(arm) for arm in ladder.labels for _ in range(3)],
        "runs": ladder.all_rungs(),
        "seeds": [
            rung
            for arm in ladder.labels
            for budget in budgets
            for rung in ladder.rungs(arm, budget)[design.middle - 1 : design.middle + 2]
            for _ in range(design.seeds - 1)
        ],
    }


def estimate(ladder: Ladder, workers: int) -> Bill:
    """Time a few steps of three sizes of every arm (about a second each), the others between them."""
    rates = _rates(ladder)
    phases = planned(ladder)

    def total(rungs: Iterable[Rung], of: Mapping[tuple[str, int], float] | None) -> float:
        return sum(ladder.flops(r) if of is None else ladder.tokens(r) * of[r.arm, r.size] for r in rungs)

    return Bill(
        {phase: total(rungs, None) for phase, rungs in phases.items()},
        {phase: total(rungs, rates) for phase, rungs in phases.items()},
        rates,
        workers,
    )


def _rates(ladder: Ladder) -> dict[tuple[str, int], float]:
    """Seconds a token by arm and size, in logarithms between those that are timed."""
    count = len(ladder.sizes)
    timed = sorted({0, count // 2, count - 1})
    rates: dict[tuple[str, int], float] = {}
    for label in ladder.labels:
        costs = [math.log(ladder.costs(Rung(label, 0, size)).flops_per_token) for size in range(count)]
        seconds = [math.log(_seconds_a_token(ladder, Rung(label, 0, size))) for size in timed]
        between = np.interp(costs, [costs[size] for size in timed], seconds)
        rates |= {(label, size): math.exp(value) for size, value in enumerate(between)}
    return rates


def _seconds_a_token(ladder: Ladder, rung: Rung) -> float:
    design, study = ladder.design, ladder.sizes[rung.size]
    flops = design.step_tokens * ladder.costs(rung).flops_per_token
    share = 1.0 if study.device != "cpu" else min(1.0, _TIMED_FLOPS / flops)
    settings = study.run_settings(ladder.arm(rung), 1e-4, 1)
    settings = settings.replace(batch_size=max(1, int(design.batch_size * share)))
    seconds = seconds_a_step(ladder.arm(rung).spec, settings, ladder.workload, study.execution)
    return seconds / settings.step_tokens


def _load() -> str:
    """Why it may take longer, where others are at work."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    return f", longer while others use it too (load {load:.0f} on {cores} cores)" if load > cores else ""


def announcement(ladder: Ladder, bill: Bill) -> list[str]:
    """The lines that are printed before anything runs."""
    design, data = ladder.design, ladder.sizes[0].data
    sizes = [ladder.costs(Rung(ladder.baseline, 0, size)).parameters for size in range(len(ladder.sizes))]
    tokens = [ladder.tokens(rung) for rung in ladder.all_rungs()]
    flops = ", ".join(f"{phase} {value:.2g}" for phase, value in bill.flops.items())
    lines = [
        f"{ladder.title}: {len(design.budgets)} budgets from {design.budgets[0]:.3g} to {design.budgets[-1]:.3g} "
        f"FLOPs, {design.sizes} sizes in each, on {data['name']} ({data['train_tokens']:,} training tokens, "
        f"{data['tokenizer']}, V = {data['vocab']})",
        f"{len(sizes)} sizes from {sizes[0].n_body:,} to {sizes[-1].n_body:,} body parameters "
        f"({sizes[0].n_active:,} to {sizes[-1].n_active:,} with the head), each run of {min(tokens):,} to "
        f"{max(tokens):,} tokens, fully decayed",
        f"each arm: learning rates swept at four rungs ({design.trials} trials and more), a rule fitted, checked at "
        f"the largest budget; then one run a rung, {design.seeds} seeds at the three sizes around each minimum",
        f"the bill: {sum(bill.flops.values()):.3g} training FLOPs ({flops}), about {duration(bill.wall)} on "
        f"{bill.workers} worker{'s' * (bill.workers != 1)} at rates just measured on this machine{_load()}; "
        "interrupted, the same command goes on",
    ]
    return [*lines, *dict.fromkeys(warning for study in ladder.sizes for arm in study.arms for warning in arm.warnings)]
