"""What a checkpoint costs the training: how long the loop waits, and how much slower the steps are meanwhile.

Turns of a few steps with no checkpoint, with one written in turn and with one written in the background, each through
the trainer and the run folder of `windtunnel train`. A turn ends when nothing is being written any more.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from windtunnel.bench.shape import Shape
from windtunnel.bench.spread import Ratio, mean_of
from windtunnel.bench.turns import Say, compared, take_turns
from windtunnel.report.tables import Table

NONE, IN_TURN, BACKGROUND = "no checkpoint", "a checkpoint in turn", "a checkpoint in the background"
STEPS = 4  # of a turn
SHAPE = Shape()


def run(rounds: int, threads: int, say: Say = lambda words: None, shape: Shape = SHAPE) -> dict[str, Any]:
    """Seconds of a step without a checkpoint, shares of it that the loop waits, and what a checkpoint costs in all."""
    from windtunnel.bench.steps import step_of
    from windtunnel.execution import Execution

    stalls: dict[str, list[float]] = {IN_TURN: [], BACKGROUND: []}
    with ExitStack() as stack:
        stack.enter_context(Execution(device="cpu", threads=threads).resolve().applied())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        step, trainer = step_of(shape.spec(), threads, shape.batch_size)
        saves = {label: _saver(trainer, place / label, label == BACKGROUND, stalls[label]) for label in stalls}
        contestants = {NONE: _turn(step, lambda: lambda: None), **{label: _turn(step, saves[label]) for label in saves}}
        seconds = take_turns(contestants, rounds, say)
        written = sum(path.stat().st_size for path in (place / BACKGROUND).rglob("*.safetensors"))
    a_step = statistics.median(seconds[NONE]) / STEPS
    rows = compared(seconds, NONE)
    for row in rows:
        label = row["label"]
        waited = stalls.get(label, [0.0])[-rounds:]
        row["stall_seconds"] = statistics.median(waited)
        row["stall_steps"] = mean_of([each / a_step for each in waited]) if label in stalls else None
        row["cost_steps"] = STEPS * (row["ratio"]["value"] - 1)
    return {
        "benchmark": "saving",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "threads": threads, "steps": STEPS},
        "checkpoint_bytes": written,
        "step_seconds": a_step,
        "contestants": rows,
    }


def _turn(step: Callable[[], object], save: Callable[[], Callable[[], None]]) -> Callable[[], None]:
    def turn() -> None:
        step()
        wait = save()
        for _ in range(STEPS - 1):
            step()
        wait()

    return turn


def _saver(trainer: Any, place: Path, background: bool, stalls: list[float]) -> Callable[[], Callable[[], None]]:
    """A call saves, notes how long that took, and returns what waits for the writing."""
    from windtunnel.training.folder import RunFolder, Saved

    folder = RunFolder(place, background)

    def save() -> Callable[[], None]:
        began = time.perf_counter()
        step = len(stalls)
        folder.save(Saved(0, step, f"step-{step}", None), trainer.snapshot(), {"segment": 0, "step": step}, keep=1)
        stalls.append(time.perf_counter() - began)
        return folder.writer.wait

    return save


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    rows = [
        (
            row["label"],
            str(Ratio(**row["ratio"])),
            f"{1000 * row['stall_seconds']:.0f}",
            "" if row["stall_steps"] is None else f"{100 * row['stall_steps']['value']:.1f}",
            f"{100 * row['cost_steps']:.1f}",
        )
        for row in result["contestants"]
    ]
    return Table(
        caption=f"A checkpoint of {result['checkpoint_bytes'] / 1e6:.0f} MB in {result['settings']['steps']} steps of "
        f"{1000 * result['step_seconds']:.0f} ms, {result['settings']['threads']} threads",
        columns=("turn", "time over none's [95 %]", "the loop waits, ms", "% of a step", "whole cost, % of a step"),
        rows=rows,
        numeric=(1, 2, 3, 4),
        note="the whole cost holds what the writing takes from the steps beside it; its interval is that of the ratio",
    )
