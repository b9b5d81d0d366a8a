"""What the processes of these tests do. Arguments and results pass as JSON."""

import errno
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import torch

import windtunnel.parts  # noqa: F401 - defines the kinds that files may hold
from windtunnel import checkpoint, recipes
from windtunnel.data.sampler import Batch, Sampler
from windtunnel.data.shards import open_dataset
from windtunnel.distributed import start
from windtunnel.distributed.files import write_parts
from windtunnel.distributed.mesh import Mesh
from windtunnel.distributed.sharding import build
from windtunnel.distributed.start import restarted, team
from windtunnel.errors import WorkError
from windtunnel.execution import Execution
from windtunnel.spec import from_json
from windtunnel.training.fitting import check_team
from windtunnel.training.loop import Trainer
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings

ONE_THREAD = Execution(device="cpu", threads=1)
_writing: list[int] = []  # the steps that came while a slow disk was written to
SIZES = {"layers": 2, "width": 16, "vocab": 67, "context": 16}


class Masked:
    """A sampler of random tokens, in which rows have unequal numbers of targets that count, one of them none."""

    def __init__(self, rows: int = 8) -> None:
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(SIZES["vocab"], (rows, SIZES["context"] + 1), generator=draw)
        self.tokens, self.targets = tokens[:, :-1].contiguous(), tokens[:, 1:].clone()
        self.targets[0, :11], self.targets[3, 2:], self.targets[6] = -1, -1, -1
        self.documents = torch.zeros_like(self.tokens)
        self.documents[::2, 5:] = 1

    def read(self, sequences: range) -> Batch:
        rows = [sequence % len(self.tokens) for sequence in sequences]
        return Batch(self.tokens[rows], self.targets[rows], self.documents[rows])


def steps(cases: dict[str, dict[str, Any]], mesh: str | None, folder: str | None = None) -> dict[str, Any]:
    """Three steps of each case: losses, norms, what layers report; with a folder, its whole weights are left there."""
    with team(None if mesh is None else Mesh.parse(mesh)) as members:
        return {label: _three_steps(label, members, folder, **case) for label, case in cases.items()}


def _trainer(
    members: Any,
    recipe: str,
    sizes: dict[str, Any] | None = None,
    head: dict[str, Any] | None = None,
    recompute: bool = False,
    **changes: Any,
) -> Trainer:
    spec = recipes.get(recipe)(**{**SIZES, **(sizes or {})})
    spec = spec.replace(head=spec.head.replace(**(head or {})))
    common = {"tokens": 4096, "context": 16, "batch_size": 4, "learning_rate": 1e-2, "warmup": 0.0, "cooldown": 0.0}
    settings = TrainingSettings(**{**common, "clip": 0.5, "z_loss": 1e-2, **changes})
    resolved = ONE_THREAD.replace(checkpoint=recompute).resolve()
    check_team(spec, settings, ONE_THREAD, members)
    sampler: Any = Masked()
    return Trainer(build(spec, 0, members, resolved.device), sampler, settings, resolved, members)


def _three_steps(label: str, members: Any, folder: str | None, **case: Any) -> dict[str, Any]:
    trainer = _trainer(members, **case)
    taken = [trainer.advance(step, 1.0) for step in range(3)]
    if folder is not None:
        weights = {"model": trainer.snapshot()["model"]}
        checkpoint.save(Path(folder) / label, weights, {}, members, trainer.parts.places)
    return {
        "losses": [step.loss.item() for step in taken],
        "norms": [step.norm.item() for step in taken],
        "layers": {name: value.flatten().tolist() for name, value in taken[-1].layers.items()},
        "replica": [weight.detach().double().sum().item() for weight in trainer.parts.weights.values()],
    }


def gradients(cases: dict[str, dict[str, Any]], mesh: str | None, folder: str) -> dict[str, float]:
    """The loss of one batch of packed rows in float64 by case; its gradients are left in the folder."""
    torch.set_default_dtype(torch.float64)
    losses = {}
    with team(None if mesh is None else Mesh.parse(mesh)) as members:
        for label, case in cases.items():
            trainer = _trainer(members, **case)
            loss, _ = trainer._backward(0)
            trainer.parts.take_gradients()
            found = {name: weight.grad for name, weight in trainer.parts.weights.items() if weight.grad is not None}
            checkpoint.save(Path(folder) / label, {"model": found}, {}, members, trainer.parts.places)
            losses[label] = loss.item()
    return losses


def run(data: str, folder: str, spec: Any, settings: Any, mesh: str | None, **trouble: Any) -> dict[str, Any]:
    """A whole run. trouble: what goes wrong in the process that it names, before the n-th step of this start.

    Returns the result and the hashes of the rows that were read, or the error.
    """
    read: list[Any] = []
    _note_rows(read)
    hook = _trouble(**trouble)
    kinds = from_json(spec), from_json(settings)
    try:
        with team(None if mesh is None else Mesh.parse(mesh), patience=trouble.get("patience", 600.0)) as members:
            result = train(
                *kinds,  # type: ignore[arg-type]
                open_dataset(data),
                folder,
                ONE_THREAD,
                resume=True,
                stop=hook,
                save_seconds=trouble.get("save_seconds", 1e9),
                events=False,
                team=members,
            )
    except (WorkError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"result": result.to_json(), "rows": read}


def meet(folder: str, missing: int) -> dict[str, str]:
    """What a process is told when the one that is missing dies before it has said its name."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    (Path(folder) / str(rank)).touch()
    while len(list(Path(folder).iterdir())) < size:  # all are about to meet, however slow the machine
        time.sleep(0.05)
    start._MEETING = 4.0
    if rank == missing:
        socket.gethostname = lambda: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, return-value]
    try:
        with team(patience=4.0):
            return {}
    except WorkError as error:
        return {"error": str(error)}


def _note_rows(read: list[Any]) -> None:
    ordinary = Sampler.read

    def noted(self: Sampler, sequences: range) -> Batch:
        read.append([sequences.start, sequences.stop])
        return ordinary(self, sequences)

    Sampler.read = noted  # type: ignore[method-assign]


def _trouble(rank: int = -1, at: int = 0, kind: str = "", **_: Any) -> Any:
    """Something bad that happens in one process, before its n-th step."""
    if rank != int(os.environ.get("RANK", "0")) or restarted():
        return None
    calls = iter(range(1, 10**6))

    def act() -> bool:
        call = next(calls)
        if _writing:
            _writing.append(call)
        if call != at:
            return False
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            signal.pause()
        if kind == "slow disk":
            checkpoint.write_parts = _slow_disk  # type: ignore[assignment]
        if kind == "full disk":
            checkpoint.write_parts = _full_disk  # type: ignore[assignment]
        return kind == "stop"

    return act


def _slow_disk(*arguments: Any) -> None:
    """Writes nothing before the training has come to two more steps."""
    _writing.append(0)
    waits = time.monotonic() + 60
    while len(_writing) < 3:
        assert time.monotonic() < waits, "the steps wait for the disk"
        time.sleep(0.01)
    _writing.clear()
    checkpoint.write_parts = write_parts
    write_parts(*arguments)


def _full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
