"""A run that is killed again and again by SIGKILL, at random moments of its training and of its saving.

python -m tests.training.killing DATASET FOLDER SPEC SETTINGS KILLS BACKGROUND        prints a record of every kill

Children are forked from a process that has everything loaded, so that a kill costs a fraction of a second.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import windtunnel.parts  # noqa: F401 - defines the kinds that specs may hold
from windtunnel.checkpoint import checkpoints, load
from windtunnel.data.shards import Dataset, open_dataset
from windtunnel.execution import Execution
from windtunnel.spec import from_json
from windtunnel.training.run import train

LONGEST = 0.12  # seconds from a child's birth to the moment from which it may be killed
A_STEP = 0.01  # the least time a step takes, so that no child comes far


def _being_written(folder: Path) -> bool:
    return folder.is_dir() and any(path.name.startswith(".partial-") for path in folder.iterdir())


def _born(spec: Any, settings: Any, dataset: Dataset, folder: Path, background: bool) -> int:
    child = os.fork()
    if child:
        return child
    execution = Execution(device="cpu", threads=1)
    options: dict[str, Any] = {"save_seconds": 0.0, "events": False, "background": background}
    try:
        train(spec, settings, dataset, folder, execution, resume=True, stop=lambda: bool(time.sleep(A_STEP)), **options)
    finally:
        os._exit(0)


def _kill_once(child: int, folder: Path, draw: random.Random) -> bool:
    """SIGKILL a child at a moment drawn, every other time one at which it writes; returns whether it was writing."""
    time.sleep(draw.uniform(0, LONGEST))
    writes, until = draw.random() < 0.5, time.monotonic() + 5
    while writes and not _being_written(folder) and time.monotonic() < until:
        pass
    time.sleep(draw.uniform(0, 0.004))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child ended before it was killed"
    return _being_written(folder)


def main(data: str, place: str, spec: str, settings: str, kills: str, background: str) -> None:
    folder, draw = Path(place), random.Random(int(kills))
    parts = [from_json(json.loads(text)) for text in (spec, settings)]
    dataset = open_dataset(Path(data))
    record = []
    for _ in range(int(kills)):
        child = _born(*parts, dataset, folder, background == "True")
        writing = _kill_once(child, folder / "checkpoints", draw)
        whole = checkpoints(folder / "checkpoints")
        for checkpoint in whole:
            load(checkpoint)  # every file against its hash
        record.append({"writing": writing, "whole": [each.name for each in whole]})
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
