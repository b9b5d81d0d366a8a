"""Several processes of this machine that run one function together, over gloo."""

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SECONDS = 240
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
    return [
        subprocess.Popen(
            [*command, json.dumps(options)],
            env=environment(**variables, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def run(count: int, function: str, *arguments: Any, **options: Any) -> list[Any]:
    """What each process's call of `module:function` returned, in the order of ranks."""
    processes = begin(count, function, arguments, options)
    try:
        ended = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, words) in zip(processes, ended, strict=True):
        assert process.returncode == 0, words
    return [json.loads(printed.splitlines()[-1]) for printed, _ in ended]


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    called = getattr(importlib.import_module(module), name)
    print(json.dumps(called(*json.loads(sys.argv[2]), **json.loads(sys.argv[3]))))
