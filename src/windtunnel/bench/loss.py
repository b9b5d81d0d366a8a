"""The unembedding and the cross-entropy in chunks against full logits: seconds, and memory beyond inputs and gradients.

Every pass runs in a process of its own, forward and backward, so that its peak is that of nothing else. What is there
before it begins is counted apart: the hidden states, the table, and room for the gradients of both.

python -m windtunnel.bench.loss '{"contestant": "...", "threads": 2, "shape": {...}}'        one line of JSON out
"""

import dataclasses
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from windtunnel.bench.spread import paired_ratio
from windtunnel.bench.turns import Say, compared, figures
from windtunnel.errors import InputError, WorkError
from windtunnel.report.tables import Table

NAIVE, CHUNKED, TORCH = "full logits", "in chunks", "in chunks, by torch"
_STATUS = Path("/proc/self/status")


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the problem: PaLM's vocabulary."""

    tokens: int = 4096
    width: int = 256
    vocabulary: int = 256_000


SHAPE = Shape()


def run(rounds: int, threads: int, say: Say, shape: Shape = SHAPE) -> dict[str, Any]:
    """Seconds and peak bytes of every contestant in turns, and both over those of full logits."""
    if not _STATUS.is_file():
        raise InputError("bench loss reads a process's peak memory from /proc, which this system does not have")
    names = [name for name in (NAIVE, CHUNKED, TORCH) if name != TORCH or _torch_has_its_own()]
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            say(f"round {index + 1} of {rounds}: {name}")
            passes[name].append(_apart(name, threads, shape))
    peaks = {name: [each["peak_bytes"] for each in measured] for name, measured in passes.items()}
    rows = compared({name: [each["seconds"] for each in measured] for name, measured in passes.items()}, NAIVE)
    for row in rows:
        row["peak_bytes"] = max(peaks[row["label"]])
        row["memory_ratio"] = paired_ratio(peaks[row["label"]], peaks[NAIVE])._asdict()
        row["loss"] = passes[row["label"]][0]["loss"]
    return {
        "benchmark": "loss",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"torch": passes[NAIVE][0]["torch"], "python": platform.python_version()},
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "threads": threads},
        "counted_apart_bytes": passes[NAIVE][0]["counted_apart_bytes"],
        "contestants": rows,
    }


def _torch_has_its_own() -> bool:
    from torch import nn
    from torch.nn import functional

    return hasattr(functional, "linear_cross_entropy") and hasattr(nn, "LinearCrossEntropyOptions")


def _apart(name: str, threads: int, shape: Shape) -> dict[str, Any]:
    job = json.dumps({"contestant": name, "threads": threads, "shape": dataclasses.asdict(shape)})
    command = [sys.executable, "-m", "windtunnel.bench.loss", job]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise WorkError(f"the pass {name!r} ended with code {done.returncode}; it may have run out of memory")
    figures_of_pass: dict[str, Any] = json.loads(done.stdout)
    return figures_of_pass


def one_pass(name: str, threads: int, shape: Shape) -> dict[str, Any]:
    """Forward and backward once, in this process, which should be new: its peak so far must not be higher."""
    import torch

    from windtunnel.kernels.memory import tune_allocator

    tune_allocator()
    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(shape.tokens, shape.width, generator=draw).requires_grad_()
    table = torch.randn(shape.vocabulary, shape.width, generator=draw).mul_(shape.width**-0.5).requires_grad_()
    targets = torch.randint(shape.vocabulary, (shape.tokens,), generator=draw)
    for weight in (hidden, table):
        weight.grad = torch.empty_like(weight).fill_(0.0)  # written to, so that its pages are there
    contestant = _contestant(name)
    contestant(hidden[:2], table[:8], targets[:2] % 8)  # what is loaded at the first call is none of its memory
    before = _resident("VmRSS")
    began = time.perf_counter()
    loss = contestant(hidden, table, targets)
    loss.backward()
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "peak_bytes": _resident("VmHWM") - before,
        "counted_apart_bytes": sum(2 * weight.nbytes for weight in (hidden, table)),
        "loss": loss.item(),
        "torch": torch.__version__,
    }


def _contestant(name: str) -> Callable[..., Any]:
    from torch import nn
    from torch.nn import functional

    from windtunnel.kernels import linear_cross_entropy

    if name == NAIVE:
        return lambda hidden, table, targets: functional.cross_entropy(hidden @ table.T, targets)
    if name == CHUNKED:
        return lambda hidden, table, targets: linear_cross_entropy(hidden, table, targets)[0]
    options = nn.LinearCrossEntropyOptions()
    return lambda hidden, table, targets: functional.linear_cross_entropy(hidden, table, targets, options=options)


def _resident(entry: str) -> int:
    """Bytes of this process in main memory, now (VmRSS) or at most so far (VmHWM)."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{entry}:"))
    return 1024 * int(line.split()[1])


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    shape = Shape(**result["settings"]["shape"])
    rows = []
    for row in result["contestants"]:
        label, _, ratio = figures(row)
        memory = row["memory_ratio"]["value"]
        cells = (label, f"{row['median_seconds']:.2f}", ratio, f"{row['peak_bytes'] / 1e6:,.0f}", f"{memory:.3f}")
        rows.append(cells)
    apart = f"{result['counted_apart_bytes'] / 1e6:,.0f} MB"
    sizes = f"{shape.tokens} tokens x {shape.width}, vocabulary {shape.vocabulary}"
    return Table(
        caption=f"Cross-entropy, forward and backward: {sizes}",
        columns=("contestant", "s (median)", "time over full logits' [95 %]", "peak MB", "over full logits'"),
        rows=rows,
        numeric=(1, 2, 3, 4),
        note=f"the peak is beyond the {apart} of hidden states, table and room for the gradients of both",
    )


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    print(json.dumps(one_pass(request["contestant"], request["threads"], Shape(**request["shape"]))))
