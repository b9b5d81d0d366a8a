"""Several processes of this machine that run one function together, over gloo."""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

SECONDS = 120
Process = subprocess.Popen[str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """What a process needs to find the package and this folder."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def begin(count: int, function: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> list[Process]:
    """Start `module:function` in so many processes. What it is called with passes as JSON."""
    port = str(free_port())
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    command = [sys.executable, "-m", "tests.distributed.processes", function, json.dumps(arguments)]
    command.append(json.dumps(options))
    return [start(command, **variables, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(count)]


def start(command: Sequence[str], **variables: str) -> Process:
    """A process whose output is kept."""
    return subprocess.Popen(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: Process) -> tuple[str, str]:
    """What a process printed, once it is at its end.

    A slow machine is waited for: given up, and killed, is a process that, with those it started, has not computed for a
    second in `SECONDS`.
    """
    computed = 0.0
    while True:
        try:
            return process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            family, now = _family(process.pid)
            if now < computed + 1.0:
                for each in family:
                    os.kill(each, signal.SIGKILL)
                pytest.fail("silent: " + "\n".join(process.communicate()))
            computed = now


def _family(process: int) -> tuple[set[int], float]:
    """A process with its descendants, and the seconds of CPU that they have had, as Linux tells."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()  # state, parent, ...
            parents[int(path.parent.name)] = int(fields[1])
            ticks[int(path.parent.name)] = sum(map(int, fields[11:15]))  # of ended children too
    family = {process}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    return family, sum(ticks.get(each, 0) for each in family) / os.sysconf("SC_CLK_TCK")


def run(count: int, function: str, *arguments: Any, **options: Any) -> list[Any]:
    """What each process's call of `module:function` returned, in the order of ranks."""
    processes = begin(count, function, arguments, options)
    try:
        told = [ended(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, words) in zip(processes, told, strict=True):
        assert process.returncode == 0, words
    return [json.loads(printed.splitlines()[-1]) for printed, _ in told]


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    called = getattr(importlib.import_module(module), name)
    print(json.dumps(called(*json.loads(sys.argv[2]), **json.loads(sys.argv[3]))))
