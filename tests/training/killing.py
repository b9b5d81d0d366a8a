"""A run that is killed again and again by SIGKILL, at random moments of its training and of its saving.

python -m tests.training.killing DATASET FOLDER SPEC SETTINGS KILLS BACKGROUND        prints a record of every kill

Children are forked from a process that has everything loaded, so that a kill costs a fraction of a second.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import windtunnel.parts  # noqa: F401 - defines the kinds that specs may hold
from windtunnel.checkpoint import checkpoints, load
from windtunnel.data.shards import Dataset, open_dataset
from windtunnel.execution import Execution
from windtunnel.spec import from_json
from windtunnel.training.run import train

LONGEST = 0.12  # seconds that a child trains, or starts, at most before it may be killed
A_STEP = 0.01  # the least time a step takes, so that no child comes far


def _being_written(folder: Path, born: float) -> bool:
    """Whether there is a half-written checkpoint that is not an earlier child's."""
    try:
        return any(path.stat().st_mtime > born for path in folder.iterdir() if path.name.startswith(".partial-"))
    except FileNotFoundError:  # not there yet, or whole just now
        return False


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


def _kill_once(child: int, folder: Path, draw: random.Random, kind: int) -> bool:
    """SIGKILL a child: as it starts (kind 0), while it writes (1, 3), at any moment; returns whether it was writing."""
    born = time.time()
    if kind:
        _wait_for_writing(folder, born)
    time.sleep(draw.uniform(0, LONGEST))
    if kind % 2:
        _wait_for_writing(folder, born)
        time.sleep(draw.uniform(0, 0.004))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child ended before it was killed"
    return _being_written(folder, born)


def _wait_for_writing(folder: Path, born: float) -> None:
    _wait(lambda: _being_written(folder, born), "the child writes nothing")


def _wait(there: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, otherwise


def _load_everything(spec: Any, settings: Any, dataset: Dataset) -> None:
    """Train here for a moment: a child should find all modules loaded."""
    with tempfile.TemporaryDirectory() as folder:
        train(spec, settings, dataset, folder, Execution(device="cpu", threads=1), events=False, background=False)


def main(data: str, place: str, spec: str, settings: str, kills: str, background: str) -> None:
    folder, draw = Path(place), random.Random(int(kills))
    parts = [from_json(json.loads(text)) for text in (spec, settings)]
    dataset = open_dataset(Path(data))
    _load_everything(parts[0], parts[1].replace(tokens=64, horizons=(1.0,)), dataset)
    record = []
    for number in range(int(kills)):
        child = _born(*parts, dataset, folder, background == "True")
        if number:  # on a slow machine too, none but the first dies before there is a whole checkpoint
            _wait(lambda: bool(checkpoints(folder / "checkpoints")), "the child finishes no checkpoint")
        writing = _kill_once(child, folder / "checkpoints", draw, (number + 1) % 5)
        whole = checkpoints(folder / "checkpoints")
        for checkpoint in whole:
            load(checkpoint)  # every file against its hash
        record.append({"writing": writing, "whole": [each.name for each in whole]})
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
