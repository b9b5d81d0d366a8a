"""Joining the processes that torchrun started."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from windtunnel.distributed.mesh import AXES, Mesh
from windtunnel.distributed.team import ALONE, Team
from windtunnel.errors import InputError, WorkError

_MEETING = 600.0  # seconds at least: hosts start at different times
_LOOKING = 0.02  # seconds between two looks at who has come
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


def launched() -> int:
    """How many processes torchrun, or a launcher that sets the same variables, started for this program."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def restarted() -> bool:
    """Whether torchrun's agent started this process anew after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def local_device(device: str) -> str:
    """The device of this process among those of its host: `auto` and `cuda` become `cuda:1` and the like."""
    if launched() == 1 or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    index, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= there:
        raise InputError(f"--device: process {index} of this host finds {there} GPUs; start one process for each")
    return f"cuda:{index}"


@contextmanager
def team(mesh: Mesh | None = None, device: str = "cpu", patience: float = 600.0) -> Iterator[Team]:
    """Join the others for a while. Without them, this process is alone.

    mesh: None shards over all devices. device: what this process computes on. patience: seconds after which those that
    wait for a process give up. Raises `InputError` if the mesh does not fit the number of processes.
    """
    size = launched()
    resolved = (mesh or Mesh()).over(size)
    if size == 1:
        yield ALONE
        return
    kind = torch.device(device).type
    if kind not in _BACKENDS:
        raise InputError(f"--device: {device} works alone; several processes need cpu or cuda")
    if kind == "cuda":
        torch.cuda.set_device(device)
    try:
        joined = _join(resolved, kind, patience)
        with joined.watched():
            yield joined
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(mesh: Mesh, kind: str, patience: float) -> Team:
    """Meet the others. Raises a `WorkError` that says who is missing, as far as that can be known."""
    waiting, meeting = timedelta(seconds=patience), timedelta(seconds=max(patience, _MEETING))
    size = launched()
    try:
        shared, rank, size = next(iter(rendezvous("env://", timeout=meeting)))
        store, names = _meet(shared, rank, size, meeting)
        shared.set_timeout(waiting)
        dist.init_process_group(_BACKENDS[kind], store=store, rank=rank, world_size=size, timeout=waiting)
        devices = _grid(kind, dict(zip(AXES, mesh.sizes, strict=True)))
        weights = devices
        if mesh.holders != mesh.shard:
            weights = _grid(kind, {"replicate": mesh.replicate, "shard": mesh.holders, "tensor": mesh.tensor})
        alike = Team(mesh, rank, names, devices, weights, store, patience)
        return replace(alike, aside=replace(alike, group=dist.new_group(timeout=waiting)))
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise WorkError(f"the {size} processes did not find each other: {error}; start all of them anew") from error


def _meet(shared: Store, rank: int, size: int, patience: timedelta) -> tuple[Store, tuple[str, ...]]:
    """A store of this start alone, and the processes' names.

    torchrun's agent keeps one store over all its restarts, in which those who died have left their addresses. So every
    process asks under a token that was never used before, and process 0 answers with its own, the prefix of all keys.
    """
    token = uuid4().hex
    shared.set_timeout(patience)
    shared.set(f"came/{rank}", token)
    if rank == 0:
        shared.set(f"start/{token}", token)
    store = PrefixStore(_answer(shared, f"start/{token}", 0), shared)
    store.set(f"name/{rank}", f"{socket.gethostname()}, pid {os.getpid()}")
    if rank == 0:
        _welcome(shared, store, token, size, patience.total_seconds())
    return store, tuple(_answer(store, f"name/{each}", each) for each in range(size))


def _welcome(shared: Store, store: Store, token: str, size: int, patience: float) -> None:
    """Answer whoever comes, those of an earlier start too, until everybody has said a name."""
    until = time.monotonic() + patience
    missing = set(range(1, size))
    while missing:
        if time.monotonic() > until:
            raise WorkError(f"process {min(missing)} does not answer: {patience:g} s have passed")
        for each in missing:
            if shared.check([f"came/{each}"]):
                shared.set(f"start/{shared.get(f'came/{each}').decode()}", token)
        time.sleep(_LOOKING)
        missing = {each for each in missing if not store.check([f"name/{each}"])}


def _answer(store: Store, key: str, process: int) -> str:
    try:
        return str(store.get(key).decode())
    except (dist.DistError, RuntimeError) as error:
        raise WorkError(f"process {process} does not answer: {error}") from error


def _grid(kind: str, sizes: dict[str, int]) -> DeviceMesh:
    """torch's mesh of the axes that are longer than one, and of `shard`; every axis costs connections at the start."""
    kept = {name: size for name, size in sizes.items() if size > 1 or name == "shard"}
    return init_device_mesh(kind, tuple(kept.values()), mesh_dim_names=tuple(kept))
