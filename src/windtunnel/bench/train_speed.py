"""Training speed against two rivals on the same weights and batch: `python -m windtunnel.bench.train_speed`.

Every contestant lives in a process of its own; in every round each has its turn, in an order that rotates, while the
others wait. A speed-up is the geometric mean over rounds of the ratio of two contestants' times in the same round.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from windtunnel.bench.shape import Shape
from windtunnel.bench.spread import Ratio, paired_ratio
from windtunnel.bench.worker import Contestant, Worker
from windtunnel.report.tables import Table

RIVALS = ("transformers", "plain")
SIZES = (512, 1024, 2048, 4096)
Say = Callable[[str], None]


def contestants(threads: int) -> list[Contestant]:
    """Windtunnel first, then each rival with and without fused AdamW, all with and without our allocator settings."""
    ours = [Contestant(name="windtunnel", allocator=allocator, threads=threads) for allocator in (True, False)]
    rivals = [
        Contestant(name=name, fused=fused, allocator=allocator, threads=threads)
        for name in RIVALS
        for allocator in (False, True)
        for fused in (False, True)
    ]
    return ours + rivals


def run(
    shape: Shape | None = None,
    rounds: int = 6,
    steps: int = 2,
    threads: int = 2,
    overhead_steps: int = 30,
    say: Say = lambda words: None,
) -> dict[str, Any]:
    """Measure everything; the figures as JSON values. overhead_steps 0 leaves out the run on the embedded corpus."""
    from windtunnel.bench.contestants import write_problem
    from windtunnel.bench.overhead import loop_overhead
    from windtunnel.execution import Execution, hardware_name
    from windtunnel.ledger import ledger

    shape = shape or Shape()
    with tempfile.TemporaryDirectory() as folder:
        problem = Path(folder) / "problem.pt"
        write_problem(shape, problem)
        race = _race(shape, problem, rounds, steps, threads, say)
        say("two one-thread processes beside one of two threads")
        pair = _pair(shape, problem, rounds, steps)
    flops = ledger(shape.spec(), shape.context, maps_kept=False).flops_per_token
    ours = race["contestants"][0]
    ours["of_peak"] = ours["tokens_per_second"] * flops / race["peak_flops"]
    if overhead_steps:
        say("the loop's own share of a run")
    import torch

    return {
        "benchmark": "train",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hardware": hardware_name(Execution(device="cpu").resolve().device),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "steps": steps, "threads": threads},
        "flops_per_token": flops,
        **race,
        "pair": pair,
        "overhead": loop_overhead(shape, overhead_steps, threads) if overhead_steps else None,
    }


def _race(shape: Shape, problem: Path, rounds: int, steps: int, threads: int, say: Say) -> dict[str, Any]:
    taken: dict[str, list[dict[str, Any]]] = {}
    products: dict[int, list[float]] = {size: [] for size in SIZES}
    with ExitStack() as stack:
        workers = [_worker(stack, contestant, shape, problem) for contestant in contestants(threads)]
        for index in range(rounds):
            say(f"round {index + 1} of {rounds}")
            first = index % len(workers)
            for worker in workers[first:] + workers[:first]:
                taken.setdefault(worker.contestant.label, []).append(worker.call("steps", count=steps))
            for size in SIZES:
                products[size].append(workers[0].call("product", size=size)["flops"])
        losses = {worker.contestant.label: worker.first_loss for worker in workers}
    wall = {label: [turn["seconds"] for turn in turns] for label, turns in taken.items()}
    process = {label: [turn["process_seconds"] for turn in turns] for label, turns in taken.items()}
    ours = workers[0].contestant.label
    sweep = {size: max(rates) for size, rates in products.items()}
    return {
        "peak_flops": max(sweep.values()),
        "products": {str(size): rate for size, rate in sweep.items()},
        "contestants": [
            {
                "label": label,
                "tokens_per_second": shape.step_tokens / statistics.median(seconds),
                "seconds": seconds,
                "process_seconds": process[label],
                "first_loss": losses[label],
                "speedup": paired_ratio(seconds, wall[ours])._asdict(),
                "process_speedup": paired_ratio(process[label], process[ours])._asdict(),
            }
            for label, seconds in wall.items()
        ],
    }


def _pair(shape: Shape, problem: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Throughput of two one-thread processes side by side over that of one process with two threads."""
    alone, together = [], []
    with ExitStack() as stack:
        wide = _worker(stack, Contestant(name="windtunnel", threads=2), shape, problem)
        narrow = [_worker(stack, Contestant(name="windtunnel", threads=1), shape, problem) for _ in range(2)]
        for _ in range(rounds):
            alone.append(1 / wide.call("steps", count=2 * steps)["seconds"])
            for worker in narrow:
                worker.ask("steps", count=steps)
            together.append(sum(1 / worker.answer()["seconds"] for worker in narrow))
    return {"ratio": paired_ratio(together, alone)._asdict(), "alone": alone, "together": together}


def _worker(stack: ExitStack, contestant: Contestant, shape: Shape, problem: Path) -> Worker:
    worker = Worker(contestant, shape, problem)
    stack.callback(worker.close)
    return worker


def table(result: dict[str, Any]) -> Table:
    """The result for people: `.rich()` for terminals, `.markdown()` for files."""
    rows = [
        (
            row["label"],
            f"{row['tokens_per_second']:,.0f}",
            str(Ratio(**row["speedup"])) if index else "",
            str(Ratio(**row["process_speedup"])) if index else "",
            f"{row['first_loss']:.6f}",
        )
        for index, row in enumerate(result["contestants"])
    ]
    return Table(
        caption="Training, tokens a second (medians)",
        columns=("contestant", "tokens/s", "windtunnel is faster by [95 %]", "by processor time", "first loss"),
        rows=rows,
        numeric=(1, 2, 3, 4),
        note="\n".join(_notes(result)),
    )


def _notes(result: dict[str, Any]) -> list[str]:
    ours = result["contestants"][0]
    notes = [
        f"windtunnel reaches {ours['of_peak']:.1%} of the fastest matrix product "
        f"({result['peak_flops'] / 1e9:.0f} GFLOP/s) at {result['flops_per_token'] / 1e6:.2f} MFLOP a token",
        f"two one-thread processes give {Ratio(**result['pair']['ratio'])} of one two-thread process",
    ]
    if result["overhead"]:
        share = result["overhead"]
        notes.append(
            f"the loop's own share of a step: {share['share']:.2%} "
            f"(sampling {share['sampling']:.2%}, logging {share['logging']:.2%})"
        )
    return notes


def main() -> None:
    """The benchmark as a program."""
    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--overhead-steps", type=int, default=30, help="0 leaves the loop's share out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    console = Console()
    result = run(
        rounds=options.rounds,
        steps=options.steps,
        threads=options.threads,
        overhead_steps=options.overhead_steps,
        say=lambda words: console.print(words, style="dim"),
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    shown = table(result)
    console.print(shown.caption, style="bold")
    console.print(shown.rich())
    console.print(shown.note)


if __name__ == "__main__":
    main()
