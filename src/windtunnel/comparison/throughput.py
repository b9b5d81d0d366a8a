"""Training throughput, measured apart from training: interleaved blocks of whole steps in one process."""

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import windtunnel.parts  # noqa: F401 - defines the kinds that files may hold
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.pool import Job
from windtunnel.data.shards import default_cache
from windtunnel.execution import Execution, Resolved, measured_peak
from windtunnel.root import Model
from windtunnel.spec import from_json
from windtunnel.training.loop import Trainer
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Workload, open_workload

STEPS, SECONDS = 20, 2.0  # a block is the first of the two that is reached
_WARM_UP_BLOCKS = 8
_AGREEMENT = 0.05


class Timed:
    """An arm ready to be timed; every call runs real training steps, data loading included."""

    def __init__(self, spec: Model, settings: TrainingSettings, workload: Workload, resolved: Resolved) -> None:
        order = workload.order(settings)
        self.trainer = Trainer(spec.build().initialize(settings.seed), order, settings, resolved)
        self.compile_seconds = self.trainer.warm_up() if resolved.compile else 0.0
        self.tokens, self.last, self.step = settings.step_tokens, settings.steps - 1, 0

    def block(self, steps: int = STEPS, seconds: float = SECONDS) -> tuple[list[float], float]:
        """Wall seconds of each step of a block, and the block's process seconds a step."""
        taken: list[float] = []
        process, began = time.process_time(), time.perf_counter()
        while len(taken) < steps and time.perf_counter() - began < seconds:
            start = time.perf_counter()
            self.trainer.advance(min(self.step, self.last), None)
            self.trainer.execution.synchronize()
            taken.append(time.perf_counter() - start)
            self.step += 1
        return taken, (time.process_time() - process) / len(taken)

    def warm_up(self) -> None:
        """Blocks until three in a row agree within 5 %, or eight of them."""
        medians: list[float] = []
        for _ in range(_WARM_UP_BLOCKS):
            medians.append(statistics.median(self.block(steps=8, seconds=0.5)[0]))
            last = medians[-3:]
            if len(last) == 3 and max(last) / min(last) - 1 < _AGREEMENT:
                return


def seconds_a_step(spec: Model, settings: TrainingSettings, workload: Workload, execution: Execution) -> float:
    """A quick estimate for the announcement, from a few steps.

    On one thread of a CPU it is the processor's time, which is what a worker with a core of its own takes: others on
    the machine hardly lengthen it.
    """
    resolved = execution.resolve()
    with resolved.applied():
        timed = Timed(spec, settings, workload, resolved)
        timed.block(steps=2)
        wall, processor = timed.block(steps=6, seconds=1.0)
        return processor if resolved.device.type == "cpu" and resolved.threads == 1 else statistics.median(wall)


def throughput_job(
    arms: Sequence[Arm],
    settings: Sequence[TrainingSettings],
    baseline: str,
    blocks: int,
    workload: Workload,
    execution: Execution,
) -> Job:
    """The job that times every arm against the baseline."""
    payload = {
        "arms": [
            {"label": arm.label, "spec": arm.spec.to_json(), "settings": one.to_json(), "packages": arm.packages}
            for arm, one in zip(arms, settings, strict=True)
        ],
        "baseline": baseline,
        "blocks": blocks,
        "workload": workload.address(),
        "execution": execution.to_json(),
    }
    return Job("throughput", "windtunnel.comparison.throughput:measure", payload, 0)


def measure(payload: dict[str, Any], report: Callable[[int], None]) -> dict[str, Any]:
    """Blocks in the order A B C C B A A B C ...; ratios from blocks at the same place in the order.

    The load is that of the machine's last minute as they end.
    """
    workload, execution = open_workload(payload["workload"]), from_json(payload["execution"])
    assert isinstance(execution, Execution)
    resolved = execution.resolve()
    with resolved.applied():
        timed = {arm["label"]: _timed(arm, workload, resolved) for arm in payload["arms"]}
        for one in timed.values():
            one.warm_up()
        rows: dict[str, list[tuple[list[float], float]]] = {label: [] for label in timed}
        for index in range(payload["blocks"]):
            for label in timed if index % 2 == 0 else reversed(timed):
                rows[label].append(timed[label].block())
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        peak = measured_peak(resolved, default_cache())
    base = [statistics.median(steps) for steps, _ in rows[payload["baseline"]]]
    return {
        "arms": {label: _summary(rows[label], base, timed[label]) for label in timed},
        "peak_flops": peak,
        "load": load,
        "cores": os.cpu_count(),
        "hardware": resolved.to_json(),
    }


def _timed(arm: dict[str, Any], workload: Workload, resolved: Resolved) -> Timed:
    spec, settings = from_json(arm["spec"], arm["packages"]), from_json(arm["settings"], arm["packages"])
    assert isinstance(spec, Model)
    assert isinstance(settings, TrainingSettings)
    return Timed(spec, settings, workload, resolved)


def _summary(blocks: list[tuple[list[float], float]], base: list[float], timed: Timed) -> dict[str, Any]:
    """What the blocks say; one block has no variation: None."""
    medians = [statistics.median(steps) for steps, _ in blocks]
    every = sorted(step for steps, _ in blocks for step in steps)
    logs = [math.log(theirs / ours) for ours, theirs in zip(medians, base, strict=True)]
    middle = statistics.median(medians)
    return {
        "tokens_per_second": timed.tokens / middle,
        "step_ms": 1e3 * middle,
        "process_ms": 1e3 * statistics.median(process for _, process in blocks),
        "jitter": every[int(0.9 * (len(every) - 1))] / statistics.median(every),
        "block_cv": statistics.stdev(medians) / statistics.mean(medians) if len(medians) > 1 else None,
        "log_ratio": statistics.mean(logs),
        "log_ratio_se": statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else None,
        "blocks": len(blocks),
        "compile_seconds": timed.compile_seconds,
    }
