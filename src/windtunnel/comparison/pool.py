"""Where jobs run. A study hands jobs to a pool and gets outcomes back; one machine or many."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from windtunnel.errors import InputError

_ATTEMPTS = 3
_INTERVAL = 0.5
_PATIENCE = 8.0
Ticket = TypeVar("Ticket", bound=Hashable)


@dataclass(frozen=True)
class Job:
    """Work for one process: `function(payload, report)` by its importable name; everything in it is plain data.

    weight: tokens that it trains, for the order of work and the time left.
    """

    name: str
    function: str
    payload: dict[str, Any]
    weight: int


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its result, or the error in one line with the traceback in `details`."""

    job: Job
    result: dict[str, Any] | None
    error: str = ""
    details: str = ""


class WorkerLost(Exception):
    """A worker ended before its job did; the message says which and why, as far as that is known."""


class Pool(ABC, Generic[Ticket]):
    """Workers for independent jobs. A kind of pool says how a job is handed over and fetched; the rest is here.

    A worker that is lost costs its job one of three attempts; the next one goes on from the last saved state.
    """

    workers: int

    def run(self, jobs: Sequence[Job], tick: Callable[[int], None]) -> Iterator[Outcome]:
        """Outcomes as they come, one a job. `tick` is called twice a second with the tokens trained in this call.

        Closed or interrupted, it asks the workers to save what they are at, and ends those that take long.
        """
        waiting = deque(sorted(jobs, key=lambda job: -job.weight))
        running: dict[Ticket, Job] = {}
        lost: Counter[str] = Counter()
        self.begin()
        try:
            while waiting or running:
                while waiting and len(running) < self.room():
                    job = waiting.popleft()
                    running[self.submit(job)] = job
                done = self.finished(list(running), _INTERVAL)
                tick(self.tokens())
                for ticket in done:
                    job = running.pop(ticket)
                    outcome = self._outcome(job, ticket, lost)
                    if outcome is None:
                        waiting.append(job)
                    else:
                        yield outcome
        except BaseException:
            self.stop(list(running))
            raise
        self.end()

    def _outcome(self, job: Job, ticket: Ticket, lost: Counter[str]) -> Outcome | None:
        """What became of a job; None if its worker was lost and it may be tried again."""
        try:
            answer = self.answer(ticket)
            if "lost" in answer:
                raise WorkerLost(answer["lost"])
        except WorkerLost as error:
            lost[job.name] += 1
            done = lost[job.name] >= _ATTEMPTS
            return Outcome(job, None, f"worker died {_ATTEMPTS} times: {error}") if done else None
        return Outcome(job, answer.get("result"), answer.get("error", ""), answer.get("details", ""))

    def prepare(self, shared: Path, read: Path | None) -> None:
        """Raise `InputError` unless all workers write into the folder `shared` and find the files that `read` holds."""

    def close(self) -> None:
        """Let go of whatever is held between two calls of `run`."""

    @abstractmethod
    def begin(self) -> None:
        """Get ready for a call of `run`; the tokens count from zero."""

    @abstractmethod
    def end(self) -> None:
        """All jobs of a call of `run` are done."""

    @abstractmethod
    def room(self) -> int:
        """How many jobs may be handed over at once."""

    @abstractmethod
    def submit(self, job: Job) -> Ticket:
        """Hand a job over."""

    @abstractmethod
    def finished(self, tickets: Sequence[Ticket], seconds: float) -> Sequence[Ticket]:
        """Those that are done, or have become so within `seconds`."""

    @abstractmethod
    def answer(self, ticket: Ticket) -> dict[str, Any]:
        """What `work` returned for a job that is done. Raises `WorkerLost`."""

    @abstractmethod
    def tokens(self) -> int:
        """Tokens trained since `begin`."""

    @abstractmethod
    def stop(self, tickets: Sequence[Ticket]) -> None:
        """Drop what has not begun, let what runs save its state, and end what takes long."""


class _Worker:
    """A process of this machine, and the pipe to it. Tokens come through it as numbers, an answer as a dictionary."""

    def __init__(self, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.device, self.job, self.tokens = device, "", 0
        self.answer: dict[str, Any] | None = None
        self.lost = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), device))
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def begin(self, job: Job) -> bool:
        """Hand over a job; False if the process is no more."""
        self.job, self.tokens, self.answer = job.name, 0, None
        try:
            self.connection.send((job.function, job.payload))
        except OSError:
            return False
        return True

    def read(self) -> None:
        """Take one message from the pipe."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.lost = True
            return
        if isinstance(message, int):
            self.tokens = message
        else:
            self.answer = message

    def end(self, deadline: float) -> str:
        """Wait for a process that was asked to end, or has; killed if it takes long. How it ended, in words."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()  # not before: a run that saves its state still reports
        code = self.process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"process {self.process.pid} {how}{', as when memory runs out' if code == -signal.SIGKILL else ''}"


class LocalPool(Pool[_Worker]):
    """Processes of this machine: one a core with one thread each, or one a GPU (named as in CUDA_VISIBLE_DEVICES).

    They end with their parent, however it ends.
    """

    def __init__(self, workers: int, devices: Sequence[str] = ("cpu",)) -> None:
        if workers < 1:
            raise InputError(f"workers: {workers}; at least 1")
        self.workers, self.devices = workers, tuple(devices)
        self._slots = [self.devices[index % len(self.devices)] for index in reversed(range(workers))]
        self._idle: list[_Worker] = []
        self._tokens: dict[str, int] = {}

    def begin(self) -> None:
        self._tokens = {}

    def end(self) -> None:
        for worker in self._idle:
            worker.connection.close()
        self._release(self._idle)

    def room(self) -> int:
        return self.workers

    def submit(self, job: Job) -> _Worker:
        while True:
            worker = self._idle.pop() if self._idle else _Worker(self._slots.pop())
            if worker.begin(job):
                return worker
            self._release([worker])

    def finished(self, tickets: Sequence[_Worker], seconds: float) -> Sequence[_Worker]:
        end, workers = time.monotonic() + seconds, {worker.connection: worker for worker in tickets}
        while ready := wait(list(workers), max(0.0, end - time.monotonic())):
            read = [workers[connection] for connection in ready]  # type: ignore[index]
            for worker in read:
                worker.read()
                self._tokens[worker.job] = worker.tokens
            if done := [worker for worker in read if worker.lost or worker.answer is not None]:
                return done
        return []

    def answer(self, ticket: _Worker) -> dict[str, Any]:
        if ticket.answer is None:
            raise WorkerLost(*self._release([ticket]))
        self._idle.append(ticket)
        return ticket.answer

    def tokens(self) -> int:
        return sum(self._tokens.values())

    def stop(self, tickets: Sequence[_Worker]) -> None:
        workers = [*tickets, *self._idle]
        for worker in workers:
            worker.process.terminate()
        self._release(workers)

    def _release(self, workers: Sequence[_Worker]) -> list[str]:
        """Let processes end, and give their devices to others. How they ended."""
        deadline = time.monotonic() + _PATIENCE
        ends = [worker.end(deadline) for worker in workers]
        self._slots += [worker.device for worker in workers]
        self._idle = [worker for worker in self._idle if worker not in workers]
        return ends


def _serve(connection: Any, parent: int, device: str) -> None:
    """A worker's life: one thread, its device, and a watch on the parent, who alone hears Ctrl-C; then jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if device != "cpu":  # before CUDA starts, so that "cuda" means this worker's own device
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            function, payload = connection.recv()
        except EOFError:
            return
        connection.send(work(function, payload, connection.send))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.3)
    os._exit(1)


def work(function: str, payload: dict[str, Any], report: Callable[[int], None]) -> dict[str, Any]:
    """Run a job in a worker; an exception becomes data, so that it always reaches the study."""
    import importlib

    from windtunnel.training.interruption import Interrupted

    module, _, name = function.partition(":")
    try:
        return {"result": getattr(importlib.import_module(module), name)(payload, report)}
    except Interrupted as error:  # someone stops this worker, not the study: its machine is wanted back
        return {"lost": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0], "details": traceback.format_exc()}
