"""Whole training steps of the architectures at matched parameters, in turns: what an idea costs on the clock.

Forward, backward, clipping, AdamW and projection through the trainer's own `advance`. Every contestant has the body
parameters of `llama`, matched by the MLP's hidden width as a study matches them, and trains on the same batch.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from windtunnel import recipes
from windtunnel.bench.contestants import OneBatch
from windtunnel.bench.spread import Ratio
from windtunnel.bench.turns import Say, compared, take_turns
from windtunnel.data.sampler import Batch
from windtunnel.execution import Execution
from windtunnel.ledger import n_body
from windtunnel.report.tables import Table
from windtunnel.root import Model
from windtunnel.training.loop import Trainer
from windtunnel.training.settings import TrainingSettings

BASELINE = "llama"
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "palm": ("palm", {}),
    "palm, serial": ("palm", {"parallel": False}),
    "ngpt": ("ngpt", {}),
    "diff_transformer": ("diff_transformer", {}),
    "diff_transformer_v2": ("diff_transformer_v2", {}),
}
# Time over the baseline's that we hold ourselves to.
GOALS = {"palm": 1.02, "ngpt": 1.15, "diff_transformer": 1.3}
SHAPES: tuple[dict[str, int], ...] = (
    {"layers": 3, "width": 64, "vocab": 1024, "context": 128},
    {"layers": 6, "width": 256, "vocab": 1024, "context": 128},
)
BATCH = 16
_LATTICES, _NEAR = (8, 4, 2, 1), 0.01  # as a study matches on a CPU


def run(rounds: int, threads: int, say: Say = lambda words: None) -> dict[str, Any]:
    """Seconds of a step at each shape, and ratios to the baseline and of the parallel block to the serial one."""
    return {"threads": threads, "shapes": [_race(shape, rounds, threads, say) for shape in SHAPES]}


def matched(recipe: str, shape: Mapping[str, int], settings: Mapping[str, Any], target: int) -> Model:
    """The spec whose hidden width brings its body parameters to `target`, in which they are linear, within 1 %.

    The width is a multiple of 8, or of 4, 2 or 1 where that misses: rows that do not fill whole vectors make an MLP's
    products slower, which would be counted against the idea.
    """

    def spec(hidden: int) -> Model:
        return recipes.get(recipe)(**shape, **settings, hidden=hidden)

    one, two = n_body(spec(1)), n_body(spec(2))
    exact = 1 + (target - one) / (two - one)
    found = [spec(max(1, round(exact / step) * step)) for step in _LATTICES]
    return next((each for each in found if abs(n_body(each) / target - 1) <= _NEAR), found[-1])


def step_of(spec: Model, threads: int, batch: int = BATCH) -> tuple[Callable[[], object], Trainer]:
    """A call trains once, on random tokens that are the same for every spec of these sizes; and who does it."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(spec.vocab, (batch, spec.context + 1), generator=draw)
    sampler: Any = OneBatch(Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), None))
    settings = TrainingSettings(
        tokens=1000 * batch * spec.context,
        context=spec.context,
        batch_size=batch,
        learning_rate=1e-4,
        warmup=0.0,
        evaluation_tokens=1024,
    )
    execution = Execution(device="cpu", threads=threads).resolve()
    trainer = Trainer(spec.build().initialize(0), sampler, settings, execution)

    def step() -> object:
        return trainer.advance(0, 1.0).norm.item()

    return step, trainer


def _race(shape: Mapping[str, int], rounds: int, threads: int, say: Say) -> dict[str, Any]:
    target = n_body(recipes.get(BASELINE)(**shape))
    specs = {label: matched(name, shape, own, target) for label, (name, own) in CONTESTANTS.items()}
    steps = {label: step_of(spec, threads)[0] for label, spec in specs.items()}
    with ExitStack() as stack:
        stack.enter_context(Execution(device="cpu", threads=threads).resolve().applied())
        say(f"{shape['layers']} x {shape['width']}")
        seconds = take_turns(steps, rounds, say)
    beside_serial = next(row for row in compared(seconds, "palm, serial") if row["label"] == "palm")["ratio"]
    return {
        "shape": dict(shape),
        "body_parameters": {label: n_body(spec) for label, spec in specs.items()},
        "contestants": compared(seconds, BASELINE),
        "parallel_over_serial": beside_serial,
    }


def table(result: dict[str, Any]) -> Table:
    """A row for each contestant and shape."""
    rows = [_row(race, each) for race in result["shapes"] for each in race["contestants"]]
    serial = ", ".join(str(Ratio(**race["parallel_over_serial"])) for race in result["shapes"])
    return Table(
        caption=f"Training steps at matched parameters, {result['threads']} threads",
        columns=["contestant", "layers x width", "body parameters", "ms a step", f"time over {BASELINE}'s", "goal"],
        rows=rows,
        numeric=(2, 3, 4, 5),
        note=f"Geometric means over rounds with 95 % intervals. palm's parallel block over its serial form: {serial}.",
    )


def _row(race: Mapping[str, Any], each: Mapping[str, Any]) -> list[str]:
    label, goal = each["label"], GOALS.get(each["label"])
    return [
        label,
        f"{race['shape']['layers']} x {race['shape']['width']}",
        f"{race['body_parameters'][label]:,}",
        f"{1000 * each['median_seconds']:.1f}",
        str(Ratio(**each["ratio"])),
        "" if goal is None else f"{goal:.2f}",
    ]
