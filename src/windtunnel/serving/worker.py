"""One thread that owns an engine: requests come to it by a queue, pieces go back to the event loop.

Nothing but the thread calls the engine, and nothing but the event loop touches the jobs.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from windtunnel.errors import InputError, WorkError
from windtunnel.inference import states
from windtunnel.inference.engine import Engine
from windtunnel.inference.request import Piece, Request

_LOG = logging.getLogger("windtunnel.serving")
_CRASHED = "the engine failed at this request or one beside it, and was started again"
_PATIENCE = 10.0  # seconds for the step that is running when the worker is stopped


class Stopped(WorkError):
    """The worker takes no more requests."""


class Job:
    """Requests that were submitted together, to one engine, and the pieces that have come and were not taken yet."""

    def __init__(self, engine: Engine, numbers: Sequence[int]) -> None:
        self.engine, self.numbers = engine, tuple(numbers)
        self.open = set(numbers)
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()

    async def next(self) -> list[tuple[int, Piece]]:
        """The pieces that have come, each with its request's place among them; waits for the first."""
        found = [await self.pieces.get()]
        while not self.pieces.empty():
            found.append(self.pieces.get_nowait())
        return [(self.numbers.index(piece.request), piece) for piece in found]


class Worker:
    """An engine and its thread. `start` and everything after it are called in one event loop.

    make: gives the engine, and another one should it fail. threads: of torch, for this engine; None leaves its number.
    """

    def __init__(self, name: str, make: Callable[[], Engine], threads: int | None = None) -> None:
        self.name, self._make, self._threads = name, make, threads
        self.engine = make()
        self.crashes = 0
        self.jobs: dict[int, Job] = {}
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"engine {name}", daemon=True)
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        return self._thread.is_alive() and not self._stopped

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Let the running step end, then the thread; requests that are still there get no more pieces."""
        self._stopped = True
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, _PATIENCE)

    async def submit(self, requests: Sequence[Request]) -> Job:
        """Queue requests, all or none. Raises `InputError`, `QueueFull` or `Stopped`."""
        if not self.alive:
            raise Stopped(f"{self.name}: the server is stopping")
        opened: asyncio.Future[Job] = self._loop.create_future()
        self._commands.put(lambda: self._enter(requests, opened))
        return await opened

    def close(self, job: Job) -> None:
        """Cancel what is still running of a job; its rows are free at the engine's next step."""
        numbers = sorted(job.open)
        for number in numbers:
            self.jobs.pop(number, None)
        job.open.clear()
        if numbers:
            self._commands.put(lambda: self._leave(job.engine, numbers))

    @property
    def state_bytes(self) -> int:
        """Bytes that the engine has set aside for the states of its rows."""
        return states.state_bytes(self.engine.batch.state)

    @property
    def state_bytes_used(self) -> int:
        """Bytes that the running requests need for the tokens that they hold now."""
        engine = self.engine
        return sum(engine.batch.state_bytes(length) for length in engine.batch.lengths[: engine.running])

    def _work(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        while True:
            try:
                command = self._commands.get(block=not self.engine.busy)
            except queue.Empty:
                self._step()
                continue
            if command is None:
                return
            command()

    def _step(self) -> None:
        try:
            pieces = self.engine.step()
        except Exception:
            _LOG.exception("%s: the engine failed", self.name)
            self.crashes += 1
            self.engine = self._make()
            self._post(self._fail)
            return
        if pieces:
            self._post(self._deliver, pieces)

    def _enter(self, requests: Sequence[Request], opened: "asyncio.Future[Job]") -> None:
        numbers: list[int] = []
        try:
            for request in requests:
                numbers.append(self.engine.submit(request))  # noqa: PERF401 - those before a refusal are taken back
        except InputError as error:
            self._leave(self.engine, numbers)
            self._post(_refuse, opened, error)
            return
        self._post(self._open, Job(self.engine, numbers), opened)

    def _leave(self, engine: Engine, numbers: Sequence[int]) -> None:
        for number in numbers if engine is self.engine else ():  # a new engine begins to number anew
            engine.cancel(number)

    def _open(self, job: Job, opened: "asyncio.Future[Job]") -> None:
        if opened.cancelled():
            self.close(job)
            return
        self.jobs.update(dict.fromkeys(job.numbers, job))
        opened.set_result(job)

    def _deliver(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            job = self.jobs.get(piece.request)
            if job is None:
                continue
            job.pieces.put_nowait(piece)
            if piece.finish is not None:
                del self.jobs[piece.request]
                job.open.discard(piece.request)

    def _fail(self) -> None:
        self._deliver([Piece(number, None, finish="error", message=_CRASHED) for number in list(self.jobs)])

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the event loop call this; a loop that has ended needs nothing any more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)


def _refuse(opened: "asyncio.Future[Job]", error: InputError) -> None:
    if not opened.cancelled():
        opened.set_exception(error)
