"""A contestant in its own process, asked over a pipe to run steps when it is its turn.

python -m windtunnel.bench.worker '{"name": "plain", ...}'        then one line of JSON in, one line out
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from windtunnel.bench.shape import Shape
from windtunnel.errors import WorkError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who runs and how. fused: torch's fused AdamW (Windtunnel's own always is). allocator: our malloc settings."""

    name: str
    fused: bool = True
    allocator: bool = True
    threads: int = 2

    @property
    def label(self) -> str:
        if self.name == "windtunnel":
            return self.name if self.allocator else f"{self.name}, allocator off"
        adamw = "fused AdamW" if self.fused else "AdamW"
        return f"{self.name}, {adamw}" + (", our allocator" if self.allocator else "")


class Worker:
    """The parent's end. `ask` and `answer` are apart so that two workers can run at once."""

    def __init__(self, contestant: Contestant, shape: Shape, problem: Path) -> None:
        self.contestant = contestant
        job = {
            "contestant": dataclasses.asdict(contestant),
            "shape": dataclasses.asdict(shape),
            "problem": str(problem),
        }
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(contestant.threads),
            "MKL_NUM_THREADS": str(contestant.threads),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "windtunnel.bench.worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.first_loss: float = self.answer()["loss"]

    def ask(self, task: str, **arguments: Any) -> None:
        """Start a task: "steps" (count) or "product" (size)."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What the task came to: wall seconds a step, and more."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkError(f"the benchmark's process of {self.contestant.label!r} ended early")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def call(self, task: str, **arguments: Any) -> dict[str, Any]:
        self.ask(task, **arguments)
        return self.answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve(job: dict[str, Any]) -> None:
    from windtunnel.bench.contestants import prepare

    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not be taken for a reply
    contestant = Contestant(**job["contestant"])
    step = prepare(
        contestant.name,
        Shape(**job["shape"]),
        Path(job["problem"]),
        contestant.fused,
        contestant.allocator,
        contestant.threads,
    )
    reply: dict[str, Any] = {"loss": step()}
    step()
    while True:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        line = sys.stdin.readline()
        if not line:
            return
        request = json.loads(line)
        reply = _steps(step, request["count"]) if request["task"] == "steps" else _product(request["size"])


def _steps(step: Any, count: int) -> dict[str, Any]:
    began, process = time.perf_counter(), time.process_time()
    for _ in range(count):
        loss = step()
    wall, process = time.perf_counter() - began, time.process_time() - process
    return {"seconds": wall / count, "process_seconds": process / count, "loss": loss}


def _product(size: int) -> dict[str, Any]:
    """FLOP/s of square float32 products of this size, the best of a quarter second."""
    import torch

    left, right = torch.randn(2, size, size).unbind()
    out = left @ right
    best, end = float("inf"), time.perf_counter() + 0.25
    while time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - began)
    return {"flops": 2 * size**3 / best}


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
