"""What share of a device's peak a training step of Llama uses, beside plain code in the manner of nanoGPT.

Both train on one batch of random tokens from the same weights, forward to update, in turns: bfloat16 and compiled on a
GPU, at nanoGPT's size; float32 and eager on a CPU, which is there to try the command. The peak is measured: the fastest
square matrix product in the same precision.
"""

import dataclasses
import functools
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

from windtunnel.bench.shape import Shape
from windtunnel.bench.spread import Ratio
from windtunnel.bench.turns import Say, compared, take_turns
from windtunnel.report.tables import Table

OURS, PLAIN = "windtunnel", "plain loop, as nanoGPT's"
GOAL = 0.45  # of the measured peak, on a GPU
STEPS = 4  # of a turn
ON_GPU = Shape(
    layers=12, width=768, heads=12, hidden=2048, vocab=50_304, context=1024, batch_size=16, tied=True
)  # 124M parameters
ON_CPU = Shape()


def run(rounds: int, threads: int, say: Say = lambda words: None, shape: Shape | None = None) -> dict[str, Any]:
    """Seconds of a turn of each contestant, and the shares of the peak. shape: None is the device's own of the two."""
    import torch

    from windtunnel.execution import Execution, hardware_name, measured_peak
    from windtunnel.ledger import ledger

    on_gpu = torch.cuda.is_available()
    resolved = Execution(device="auto", threads=threads, compile=on_gpu, workers=0).resolve()
    shape = shape or (ON_GPU if on_gpu else ON_CPU)
    say("compiling both" if on_gpu else "no GPU here: a small model in float32 instead")
    peak = measured_peak(resolved)
    losses: dict[str, float] = {}
    with resolved.applied():
        seconds = take_turns(_contestants(shape, resolved, losses), rounds, say)
    counted = ledger(shape.spec(), shape.context, maps_kept=not on_gpu)
    rows = compared(seconds, PLAIN)
    for row in rows:
        rate = STEPS * shape.step_tokens / statistics.median(row["seconds"])
        row["tokens_per_second"], row["loss"] = rate, losses[row["label"]]
        row["mfu"], row["mfu_dense"] = (rate * each / peak for each in (counted.training.model, counted.training.dense))
    return {
        "benchmark": "mfu",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hardware": hardware_name(resolved.device),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "threads": threads, "steps": STEPS},
        "execution": resolved.to_json(),
        "parameters": counted.parameters.n_total,
        "peak_flops": peak,
        "contestants": rows,
    }


def _contestants(shape: Shape, resolved: Any, losses: dict[str, float]) -> dict[str, Callable[[], None]]:
    """A turn of each; its last loss is noted."""
    import torch

    from windtunnel.data.sampler import Batch

    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(shape.vocab, (shape.batch_size, shape.context + 1), generator=draw)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), None)
    model = shape.spec().build().initialize(0)
    steps = {PLAIN: _plain(shape, resolved, model.state_dict(), batch), OURS: _ours(shape, resolved, model, batch)}

    def turn(label: str) -> None:
        for _ in range(STEPS):
            losses[label] = steps[label]()
        resolved.synchronize()

    return {label: functools.partial(turn, label) for label in steps}


def _ours(shape: Shape, resolved: Any, model: Any, batch: Any) -> Callable[[], float]:
    from windtunnel.bench.contestants import OneBatch, settings
    from windtunnel.training.loop import Trainer

    sampler: Any = OneBatch(batch)
    trainer = Trainer(model, sampler, settings(shape, 1000 * shape.step_tokens), resolved)
    return lambda: trainer.advance(0, 1.0).loss.item()


def _plain(shape: Shape, resolved: Any, weights: Any, batch: Any) -> Callable[[], float]:
    import torch

    from windtunnel.bench.contestants import usual
    from windtunnel.bench.rivals import plain

    model: Any = plain.load(shape, weights).to(resolved.device)
    tokens, targets = (each.to(resolved.device) for each in batch[:2])
    called = torch.compile(model) if resolved.compile else model

    def loss() -> Any:
        with resolved.autocast():
            return called(tokens, targets)

    return usual(model, loss, fused=True)


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    rows = [
        (
            row["label"],
            f"{row['tokens_per_second']:,.0f}",
            str(Ratio(**row["ratio"])),
            f"{100 * row['mfu']:.1f}",
            f"{100 * row['mfu_dense']:.1f}",
            f"{row['loss']:.4f}",
        )
        for row in result["contestants"]
    ]
    execution = result["execution"]
    compiled = "compiled" if execution["compile"] else "eager"
    return Table(
        caption=f"Training {result['parameters'] / 1e6:.0f}M parameters at {result['settings']['shape']['context']} "
        f"tokens in {execution['dtype']}, {compiled}, on {result['hardware']}",
        columns=("contestant", "tokens/s", f"time over the {PLAIN} [95 %]", "MFU, %", "by PaLM's formula", "loss"),
        rows=rows,
        numeric=(1, 2, 3, 4, 5),
        note=f"of the measured peak of {result['peak_flops'] / 1e12:.3g} TFLOP/s; MFU counts attended pairs, PaLM's "
        f"formula all of them; the goal on a GPU is {100 * GOAL:.0f} %",
    )
