"""Jobs on a Ray cluster: a pool whose workers are on many machines, all of which see the study's folder.

Files do not travel: runs write into the study's folder and read its tokens, both on paths that all nodes share. What
goes through Ray are jobs and results, plain data, and nothing of it is kept in a file.
"""

import importlib.util
import logging
import os
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from windtunnel.comparison.cluster_worker import Tally, View, attempt
from windtunnel.comparison.pool import Job, Pool, WorkerLost
from windtunnel.errors import InputError, WorkError

_MARK = ".cluster-"
_LOOK_SECONDS = 120.0
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 2.0
_DROUGHT_SECONDS = 300.0
_PATIENCE = 20.0
_STORE_BYTES = 100 * 2**20  # of shared memory: jobs and results are a few kilobytes
_CAUSES = {
    "OutOfMemoryError": "its machine ran out of memory",
    "NodeDiedError": "its machine was lost",
    "WorkerCrashedError": "its process died, or its machine was lost",
}


def check_cluster(address: str, device: str = "auto") -> None:
    """Raise `InputError` for what can be known before anything is connected."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("--cluster needs Ray: pip install 'windtunnel[cluster]'")
    if ":" in device:
        raise InputError(f"device: {device!r} given; on a cluster Ray chooses among the devices: cuda or cpu")
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise InputError(
            f"cluster: {address!r} given; auto, local, or HOST:PORT of the head (a node must run here too)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"cluster: nothing answers at {address} ({error}); start it with: ray start --head") from None


class RayPool(Pool[Any]):
    """The CPUs or GPUs of a Ray cluster, one and one thread for each job.

    address: "auto" for the cluster of this machine (or RAY_ADDRESS), "local" for one of its own that ends with the
    pool, or the head's "HOST:PORT". workers: at most so many jobs at once; without it, nodes that join get work too.
    device: what the study runs on.

    The jobs of a machine that is lost are given to others, and go on from their last checkpoint in the study's folder.
    Jobs end with the process that started them. Raises `InputError` if there is no such cluster.
    """

    def __init__(self, address: str, workers: int | None = None, device: str = "cpu") -> None:
        check_cluster(address, device)
        self._ray, self._most = _connected(address, workers), workers
        self._kind = "GPU" if device == "cuda" else "CPU"
        capacity = self._capacity()
        if not capacity:
            self._ray.shutdown()
            raise InputError(f"cluster: {address} has no {self._kind}; add nodes with: ray start --address=HOST:PORT")
        self.workers = min(workers or capacity, capacity)
        here = self._on_node(self._ray.get_runtime_context().get_node_id())
        self._tally = self._ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Tally).remote()
        gpus = 1 if self._kind == "GPU" else 0
        options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        self._attempt = self._ray.remote(**options)(attempt)
        self._view: View | None = None
        self._names: dict[Any, str] = {}
        self._read: tuple[dict[str, int], dict[str, str]] = ({}, {})
        self._last_capacity = time.monotonic()

    def prepare(self, shared: Path, read: Path | None) -> None:
        for old in shared.glob(f"{_MARK}*"):  # of a study that was killed
            old.unlink(missing_ok=True)
        mark = shared.absolute() / f"{_MARK}{uuid.uuid4().hex}"
        mark.touch()
        self._view = View.of(mark, read)
        look = self._ray.remote(num_cpus=0, max_retries=0)(View.difference)
        nodes = {
            look.options(scheduling_strategy=self._on_node(node["NodeID"])).remote(self._view): node
            for node in self._nodes()
        }
        ready, late = self._ray.wait(list(nodes), num_returns=len(nodes), timeout=_LOOK_SECONDS)
        found = {_name(nodes[ref]): self._difference(ref) for ref in ready}
        found |= {_name(nodes[ref]): f"has not answered for {_LOOK_SECONDS:.0f} s" for ref in late}
        wrong = [f"node {name} {difference}" for name, difference in sorted(found.items()) if difference]
        if wrong:
            raise InputError(f"cluster: {wrong[0]}{f'; {len(wrong) - 1} more nodes differ' if wrong[1:] else ''}")

    def close(self) -> None:
        if self._view is not None:
            self._view.mark.unlink(missing_ok=True)
        self._ray.shutdown()

    def begin(self) -> None:
        self._names = {}

    def end(self) -> None:
        self._names = {}

    def room(self) -> int:
        return self._most or 2**30

    def submit(self, job: Job) -> Any:
        if self._view is None:
            raise RuntimeError("prepare() comes before jobs")
        ticket = self._attempt.remote(job.name, job.function, job.payload, self._view, self._tally)
        self._names[ticket] = job.name
        return ticket

    def finished(self, tickets: Sequence[Any], seconds: float) -> Sequence[Any]:
        self._ray.wait(list(tickets), num_returns=1, timeout=seconds)
        done: list[Any] = self._ray.wait(list(tickets), num_returns=len(tickets), timeout=0)[0]
        if done or self._capacity():
            self._last_capacity = time.monotonic()
        elif time.monotonic() - self._last_capacity > _DROUGHT_SECONDS:
            raise WorkError(
                f"cluster: no node with a {self._kind} for {_DROUGHT_SECONDS / 60:.0f} minutes; what was finished is "
                "kept: the same command goes on"
            )
        return done

    def answer(self, ticket: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._ray.get(ticket)
        except self._ray.exceptions.RayTaskError as error:  # before the job began: `work` turns errors into data
            return {"error": f"cluster: {_last_line(error)}", "details": str(error)}
        except self._ray.exceptions.RayError as error:
            kind = type(error).__name__
            self.tokens()
            place = self._read[1].get(self._names[ticket], "on a node that had not begun")
            raise WorkerLost(f"{place}: {_CAUSES.get(kind, kind)}") from error
        if "unfit" in answer:
            raise WorkError(f"cluster: node {answer['unfit']}; stop that node, and give the same command again")
        return answer

    def tokens(self) -> int:
        """Tokens of this call's jobs. What a job had trained before it went on counts, as its total does."""
        with suppress(self._ray.exceptions.RayError):  # busy, or begun again: the next look will see
            self._read = self._ray.get(self._tally.read.remote(), timeout=_READ_SECONDS)
        return sum(self._read[0].get(name, 0) for name in set(self._names.values()))

    def stop(self, tickets: Sequence[Any]) -> None:
        for ticket in tickets:
            self._ray.cancel(ticket, force=False, recursive=False)
        if tickets:
            _, late = self._ray.wait(list(tickets), num_returns=len(tickets), timeout=_PATIENCE)
            for ticket in late:
                self._ray.cancel(ticket, force=True, recursive=False)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get(self._kind, 0) >= 1]

    def _capacity(self) -> int:
        return sum(int(node["Resources"][self._kind]) for node in self._nodes())

    def _difference(self, ref: Any) -> str:
        try:
            return str(self._ray.get(ref))
        except self._ray.exceptions.RayError as error:
            return f"cannot run Windtunnel ({_last_line(error)})"

    def _on_node(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)


def _connected(address: str, workers: int | None) -> Any:
    """Ray, connected; it reports no usage and shows no dashboard for a cluster of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    own = {"include_dashboard": False, "num_cpus": workers, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR, **(own if address == "local" else {})
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"cluster: cannot join {address} ({_last_line(error)}); this machine must be one of its nodes: "
            "ray start --head, or ray start --address=HOST:PORT"
        ) from error
    return ray


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
