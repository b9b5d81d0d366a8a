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
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from windtunnel.errors import InputError

_ATTEMPTS = 3
_INTERVAL = 0.5
_PATIENCE = 8.0
_counter: Any = None
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

    def prepare(self, shared: Path, read: Path) -> None:
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


class LocalPool(Pool["Future[Any]"]):
    """Processes of this machine: one a core with one thread each, or one a GPU (named as in CUDA_VISIBLE_DEVICES).

    When one dies, those beside it save and begin again too. Workers end with their parent, however it ends.
    """

    def __init__(self, workers: int, devices: Sequence[str] = ("cpu",)) -> None:
        if workers < 1:
            raise InputError(f"workers: {workers}; at least 1")
        self.workers, self.devices = workers, tuple(devices)
        self._context = multiprocessing.get_context("spawn")
        self._counter = self._context.Value("q", 0)
        self._before = 0
        self._executor: ProcessPoolExecutor | None = None
        self._homes: dict[Future[Any], ProcessPoolExecutor] = {}
        self._others: list[Any] = []

    def begin(self) -> None:
        self._before = self._counter.value

    def end(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def room(self) -> int:
        return self.workers

    def submit(self, job: Job) -> "Future[Any]":
        while True:
            if self._executor is None:
                self._executor = self._new_executor()
            try:
                future = self._executor.submit(_work_here, job.function, job.payload)
            except BrokenProcessPool:  # a process has just died
                self._drop()
            else:
                self._homes[future] = self._executor
                return future

    def finished(self, tickets: Sequence["Future[Any]"], seconds: float) -> Sequence["Future[Any]"]:
        return list(wait(tickets, timeout=seconds, return_when=FIRST_COMPLETED).done)

    def answer(self, ticket: "Future[Any]") -> dict[str, Any]:
        home = self._homes.pop(ticket)
        try:
            answer: dict[str, Any] = ticket.result()
            return answer
        except BrokenProcessPool as error:
            if home is self._executor:
                self._drop()
            raise WorkerLost(str(error)) from error

    def tokens(self) -> int:
        return int(self._counter.value) - self._before

    def stop(self, tickets: Sequence["Future[Any]"]) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            for child in self._children():
                child.terminate()
            self._let_go()

    def _drop(self) -> None:
        """Let go of an executor that lost a process.

        It has asked the others to stop, but would wait for ever for one that saves its state and then asks for work.
        """
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._let_go()

    def _let_go(self) -> None:
        """Wait for processes that were asked to stop; those that take long are killed."""
        end = time.monotonic() + _PATIENCE
        for child in self._children():
            child.join(max(0.0, end - time.monotonic()))
            if child.is_alive():
                child.kill()
        self._executor = None

    def _children(self) -> list[Any]:
        return [child for child in multiprocessing.active_children() if child not in self._others]

    def _new_executor(self) -> ProcessPoolExecutor:
        self._others = multiprocessing.active_children()
        slots = self._context.Queue()
        for index in range(self.workers):
            slots.put(self.devices[index % len(self.devices)])
        return ProcessPoolExecutor(
            self.workers, mp_context=self._context, initializer=_begin, initargs=(self._counter, os.getpid(), slots)
        )


def _begin(tokens: Any, parent: int, slots: Any) -> None:
    """A worker's first act: one thread, its device, and a watch on the parent, who alone hears Ctrl-C."""
    global _counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _counter = tokens
    device = slots.get()
    if device != "cpu":  # before CUDA starts, so that "cuda" means this worker's own device
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.3)
    os._exit(1)


def _work_here(function: str, payload: dict[str, Any]) -> dict[str, Any]:
    seen = 0

    def report(tokens: int) -> None:
        nonlocal seen
        with _counter.get_lock():
            _counter.value += tokens - seen
        seen = tokens

    return work(function, payload, report)


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
