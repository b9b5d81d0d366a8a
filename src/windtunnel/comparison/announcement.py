"""What is printed before a study runs: what it will do, how long it will take, what it can see."""

from dataclasses import dataclass
from typing import Any

from windtunnel.comparison.engine import planned_tokens
from windtunnel.comparison.looks import seeds_at
from windtunnel.comparison.power import announcement as power_sentence
from windtunnel.comparison.study import Study
from windtunnel.comparison.throughput import STEPS, seconds_a_step
from windtunnel.training.progress import duration
from windtunnel.training.workload import SOLVED

_OVERHEAD = 1.12  # evaluation, checkpoints, starting and waiting for workers


@dataclass(frozen=True)
class Bill:
    """Expected cost of a study on this machine. seconds: wall time with `workers` side by side."""

    tokens: dict[str, int]
    step_seconds: dict[str, float]
    seconds: float
    workers: int


def estimate(study: Study, workers: int) -> Bill:
    """Time a few steps of every arm (about a second each) and multiply."""
    tokens = planned_tokens(study)
    steps = {
        arm.label: seconds_a_step(
            arm.spec, study.run_settings(arm, 1e-4, 1).replace(ramp=()), study.workload, study.execution
        )
        for arm in study.arms
    }
    step_tokens = study.design.batch_size * study.design.context
    training = sum(tokens[label] / step_tokens * seconds for label, seconds in steps.items()) / workers
    timing = (
        0.0
        if study.task is not None
        else sum((study.design.blocks + 3) * STEPS * seconds for seconds in steps.values())
    )
    return Bill(tokens, steps, training * _OVERHEAD + timing, workers)


def announcement(study: Study, bill: Bill) -> list[str]:
    """The lines, in order."""
    design, data = study.design, study.data
    lines = [
        f"{study.baseline} against {', '.join(arm.label for arm in study.variants)}: {design.layers} layers x "
        f"{design.width}, context {design.context}, on {_workload(study)}",
        f"each arm: {design.trials} learning-rate trials at {design.tuning_fraction:g} D, then {design.seeds} seeds to "
        f"D = {round(design.tokens * design.longest):,} tokens, evaluated fully decayed at "
        f"{', '.join(f'{horizon:g} D' for horizon in design.horizons)}",
        _power(study),
        f"about {duration(bill.seconds)} on {bill.workers} worker{'s' if bill.workers > 1 else ''} "
        f"({sum(bill.tokens.values()):,} tokens); interrupted, the same command goes on",
    ]
    if study.probes:
        lines.insert(2, f"and {study.design.seeds} seeds to D of each probe: {', '.join(study.probes)}")
    if study.looks > 1:
        seeds = " and ".join(str(seeds_at(design.seeds, look)) for look in range(2, study.looks + 1))
        lines.append(f"while a verdict is inconclusive, on to {seeds} seeds; the time is that of the first look")
    if data.get("epochs", 0) > 1:
        lines.insert(2, f"the longest run reads the corpus {data['epochs']:.1f} times")
    lines += [warning for arm in study.arms for warning in arm.warnings]
    return lines


def _workload(study: Study) -> str:
    data = study.data
    if study.task is not None:
        return f"{data['name']}: {data['heldout_items']:,} held-out items, chance {data['chance']:.3g}"
    return f"{data['name']} ({data['train_tokens']:,} training tokens, {data['tokenizer']}, V = {data['vocab']})"


def _power(study: Study) -> str:
    design = study.design
    if study.task is None:
        return power_sentence(
            design.seeds, design.sigma, design.slope, prior=True, alpha=study.alpha / len(study.variants)
        )
    items = study.data["heldout_items"]
    return f"solved means {SOLVED:.0%} of the answers; an accuracy of one half on {items:,} items is known to " + (
        f"{100 * 1.96 * 0.5 / items**0.5:.1f} points, seeds apart"
    )


def bill_json(study: Study, bill: Bill) -> dict[str, Any]:
    """The announcement as JSON."""
    return {"study": study.id, "seconds": bill.seconds, "workers": bill.workers, "tokens": bill.tokens}
