"""What is printed before a study runs: what it will do, how long it will take, what it can see."""

from dataclasses import dataclass
from typing import Any

from windtunnel.comparison.engine import planned_tokens
from windtunnel.comparison.power import announcement as power_sentence
from windtunnel.comparison.study import Study, dataset_of
from windtunnel.comparison.throughput import STEPS, seconds_a_step
from windtunnel.training.progress import duration

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
    dataset, tokens = dataset_of(study), planned_tokens(study)
    steps = {
        arm.label: seconds_a_step(arm.spec, study.run_settings(arm, 1e-4, 1).replace(ramp=()), dataset, study.execution)
        for arm in study.arms
    }
    step_tokens = study.design.batch_size * study.design.context
    training = sum(tokens[label] / step_tokens * seconds for label, seconds in steps.items()) / workers
    timing = sum((study.design.blocks + 3) * STEPS * seconds for seconds in steps.values())
    return Bill(tokens, steps, training * _OVERHEAD + timing, workers)


def announcement(study: Study, bill: Bill) -> list[str]:
    """The lines, in order."""
    design, data = study.design, study.data
    lines = [
        f"{study.baseline} against {', '.join(arm.label for arm in study.variants)}: {design.layers} layers x "
        f"{design.width}, context {design.context}, on {data['name']} ({data['train_tokens']:,} training tokens, "
        f"{data['tokenizer']}, V = {data['vocab']})",
        f"each arm: {design.trials} learning-rate trials at {design.tuning_fraction:g} D, then {design.seeds} seeds to "
        f"D = {round(design.tokens * design.longest):,} tokens, evaluated fully decayed at "
        f"{', '.join(f'{horizon:g} D' for horizon in design.horizons)}",
        power_sentence(design.seeds, design.sigma, design.slope, prior=True, comparisons=len(study.variants)),
        f"about {duration(bill.seconds)} on {bill.workers} worker{'s' if bill.workers > 1 else ''} "
        f"({sum(bill.tokens.values()):,} tokens); interrupted, the same command goes on",
    ]
    if data["epochs"] > 1:
        lines.insert(2, f"the longest run reads the corpus {data['epochs']:.1f} times")
    lines += [warning for arm in study.arms for warning in arm.warnings]
    return lines


def bill_json(study: Study, bill: Bill) -> dict[str, Any]:
    """The announcement as JSON."""
    return {"study": study.id, "seconds": bill.seconds, "workers": bill.workers, "tokens": bill.tokens}
