"""One model on two processes against one process with the same threads: training steps, in turns.

Forward, backward, clipping, AdamW through the trainer's own `advance`, over gloo on this machine. While one contestant
works the others wait for their turn, asleep. `python -m windtunnel.bench.fsdp JOB` is one process of a contestant.
"""

import dataclasses
import json
import os
import platform
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

from windtunnel.bench.shape import Shape
from windtunnel.bench.spread import paired_ratio
from windtunnel.bench.turns import Say, compared, figures, take_turns
from windtunnel.errors import InputError, WorkError
from windtunnel.report.tables import Table

BASELINE = "one process"
CONTESTANTS: dict[str, str | None] = {
    BASELINE: None,
    "two processes, sharded (FSDP2)": "shard=2",
    "two processes, replicated": "replicate=2,shard=1",
}
GOAL = 0.8  # of the baseline's tokens a second
STEPS = 2  # of a turn


def run(rounds: int, threads: int, say: Say = lambda words: None) -> dict[str, Any]:
    """Seconds of a turn, and ratios; `threads` are shared out among the processes of a contestant."""
    if threads % 2:
        raise InputError(f"--threads: two processes share them, so they must be even, got {threads}")
    shape = Shape()
    with ExitStack() as stack:
        say("starting 5 processes")
        crews = {label: Crew(shape, mesh, threads) for label, mesh in CONTESTANTS.items()}
        for crew in crews.values():
            stack.callback(crew.close)
        seconds = take_turns({label: crew.steps for label, crew in crews.items()}, rounds, say)
        losses = {label: crew.loss for label, crew in crews.items()}
    import torch

    return {
        "benchmark": "fsdp",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "threads": threads, "steps": STEPS},
        "contestants": compared(seconds, BASELINE),
        "losses": losses,
    }


def table(result: dict[str, Any]) -> Table:
    """A row for each contestant."""
    tokens = STEPS * Shape(**result["settings"]["shape"]).step_tokens
    rows = []
    for each in result["contestants"]:
        label, _, _ = figures(each)
        share = paired_ratio(result["contestants"][0]["seconds"], each["seconds"])
        goal = "" if label == BASELINE else f"{GOAL:.2f}"
        speed, loss = tokens / each["median_seconds"], result["losses"][label]
        rows.append([label, f"{speed:,.0f}", str(share), goal, f"{loss:.6f}"])
    return Table(
        caption=f"Training on two processes over gloo, {result['settings']['threads']} threads in all",
        columns=["contestant", "tokens/s", f"of {BASELINE}'s [95 %]", "goal", "last loss"],
        rows=rows,
        numeric=(1, 2, 3, 4),
        note="The last losses differ by rounding alone: all train on the same batches.",
    )


class Crew:
    """The processes of one contestant."""

    def __init__(self, shape: Shape, mesh: str | None, threads: int) -> None:
        count = 1 if mesh is None else 2
        job = json.dumps({"shape": dataclasses.asdict(shape), "mesh": mesh, "threads": threads // count})
        self.loss = float("nan")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "windtunnel.bench.fsdp", job],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=_environment(rank, count, port, threads // count),
            )
            for rank in range(count)
        ]

    def steps(self) -> None:
        """A turn."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise WorkError("a process of the benchmark ended early")
            self.loss = float(line)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _environment(rank: int, count: int, port: str, threads: int) -> dict[str, str]:
    common = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if count == 1:
        return common
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    return {**common, **place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _serve(shape: Shape, mesh: str | None, threads: int) -> None:
    from windtunnel.bench.contestants import settings
    from windtunnel.distributed.mesh import Mesh
    from windtunnel.distributed.sharding import build
    from windtunnel.distributed.start import team
    from windtunnel.execution import Execution
    from windtunnel.training.loop import Trainer

    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not be taken for a reply
    resolved = Execution(device="cpu", threads=threads).resolve()
    sampler: Any = _Random(shape)
    with team(None if mesh is None else Mesh.parse(mesh)) as members, resolved.applied():
        model = build(shape.spec(), 0, members, resolved.device)
        trainer = Trainer(model, sampler, settings(shape, 1000 * shape.step_tokens), resolved, members)
        step = 0
        while sys.stdin.readline():
            for _ in range(STEPS):
                loss = trainer.advance(step, 1.0).loss.item()
                step += 1
            replies.write(f"{loss}\n")
            replies.flush()


class _Random:
    """A sampler of random tokens, the same in every process."""

    def __init__(self, shape: Shape) -> None:
        import torch

        draw = torch.Generator().manual_seed(0)
        size = (4 * shape.batch_size, shape.context + 1)
        self.tokens = torch.randint(shape.vocab, size, generator=draw)

    def read(self, sequences: range) -> Any:
        from windtunnel.data.sampler import Batch

        rows = self.tokens[[sequence % len(self.tokens) for sequence in sequences]]
        return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), None)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    _serve(Shape(**given["shape"]), given["mesh"], given["threads"])
