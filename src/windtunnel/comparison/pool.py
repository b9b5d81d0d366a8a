"""Where jobs run. A study hands jobs to a pool and gets outcomes back; another engine implements the same two calls."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from windtunnel.errors import InputError

_ATTEMPTS = 3
_PATIENCE = 8.0
_counter: Any = None


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


class Pool(Protocol):
    """An engine for independent jobs."""

    workers: int

    def run(self, jobs: Sequence[Job], tick: Callable[[int], None]) -> Iterator[Outcome]:
        """Outcomes as they come, one a job. `tick` is called twice a second with the tokens trained in this call."""
        ...


class LocalPool:
    """Processes of this machine: one a core with one thread each, or one a GPU (named as in CUDA_VISIBLE_DEVICES).

    A worker that dies costs its job one attempt; jobs continue from their last saved state. Workers end with their
    parent, however it ends.
    """

    def __init__(self, workers: int, devices: Sequence[str] = ("cpu",)) -> None:
        if workers < 1:
            raise InputError(f"workers: {workers}; at least 1")
        self.workers, self.devices = workers, tuple(devices)
        self._context = multiprocessing.get_context("spawn")
        self._tokens = self._context.Value("q", 0)
        self._before = 0

    def run(self, jobs: Sequence[Job], tick: Callable[[int], None]) -> Iterator[Outcome]:
        attempts = {job.name: 0 for job in jobs}
        left = sorted(jobs, key=lambda job: -job.weight)
        self._before = self._tokens.value
        while left:
            executor = self._executor()
            try:
                running = {executor.submit(_work, job.function, job.payload): job for job in left}
                left = []
                for future, job in self._finished(running, tick):
                    attempts[job.name] += 1
                    error = future.exception()
                    if error is None:
                        yield _outcome(job, future.result())
                    elif isinstance(error, BrokenProcessPool) and attempts[job.name] < _ATTEMPTS:
                        left.append(job)
                    else:
                        yield Outcome(job, None, f"worker died {attempts[job.name]} times: {error}")
            except BaseException:
                _stop(executor)
                raise
            executor.shutdown()

    def _executor(self) -> ProcessPoolExecutor:
        slots = self._context.Queue()
        for index in range(self.workers):
            slots.put(self.devices[index % len(self.devices)])
        return ProcessPoolExecutor(
            self.workers, mp_context=self._context, initializer=_begin, initargs=(self._tokens, os.getpid(), slots)
        )

    def _finished(
        self, running: dict[Future[Any], Job], tick: Callable[[int], None]
    ) -> Iterator[tuple[Future[Any], Job]]:
        while running:
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            tick(self._tokens.value - self._before)
            for future in done:
                yield future, running.pop(future)


def _stop(executor: ProcessPoolExecutor) -> None:
    """Give up what is queued and ask the workers to save what they are at; those that take long are ended."""
    executor.shutdown(wait=False, cancel_futures=True)
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    end = time.monotonic() + _PATIENCE
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
        if child.is_alive():
            child.kill()


def _outcome(job: Job, answer: dict[str, Any]) -> Outcome:
    return Outcome(job, answer.get("result"), answer.get("error", ""), answer.get("details", ""))


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


def _work(function: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a worker; an exception becomes data, so that it always reaches the study."""
    import importlib

    module, _, name = function.partition(":")
    seen = 0

    def report(tokens: int) -> None:
        nonlocal seen
        with _counter.get_lock():
            _counter.value += tokens - seen
        seen = tokens

    try:
        return {"result": getattr(importlib.import_module(module), name)(payload, report)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0], "details": traceback.format_exc()}
