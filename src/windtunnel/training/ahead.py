"""Batches read ahead of the steps that need them, by threads: a step takes what is ready, and waits for nothing.

A batch is a function of its sequences alone, so it has the same bits whoever reads it and whenever; where a step wants
other sequences than were foreseen, after a rewind, they are read on the spot.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from windtunnel.data.sampler import Batch
from windtunnel.training.workload import Order

_AHEAD = 2  # batches for each thread


class Ahead:
    """Reads the batches of the steps to come.

    plan: the sequences of a step. workers: threads, 0 for none. pinned: whether the threads leave the batches in memory
    that a GPU can copy from while it computes.
    """

    def __init__(self, sampler: Order, plan: Callable[[int], range], workers: int, pinned: bool = False) -> None:
        self.sampler, self._plan, self._workers, self._pinned = sampler, plan, workers, pinned
        self._coming: dict[range, Future[Batch]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self.waited = 0.0  # seconds, in `take`

    def take(self, step: int) -> Batch:
        """The batch of a step; those of the next ones are begun."""
        began = time.perf_counter()
        sequences = self._plan(step)
        ready = self._coming.pop(sequences, None)
        self._look_ahead(step)
        batch = self.sampler.read(sequences) if ready is None else ready.result()
        self.waited += time.perf_counter() - began
        return batch

    def close(self) -> None:
        """Forget what was read ahead, and end the threads."""
        self._coming.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _look_ahead(self, step: int) -> None:
        if not self._workers:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="windtunnel-data")
        wanted = [self._plan(step + ahead) for ahead in range(1, _AHEAD * self._workers + 1)]
        self._coming = {sequences: ready for sequences, ready in self._coming.items() if sequences in wanted}
        for sequences in wanted:
            if sequences not in self._coming:
                self._coming[sequences] = self._pool.submit(self._read, sequences)

    def _read(self, sequences: range) -> Batch:
        batch = self.sampler.read(sequences)
        if not self._pinned:
            return batch
        documents = None if batch.documents is None else batch.documents.pin_memory()
        return Batch(batch.tokens.pin_memory(), batch.targets.pin_memory(), documents)
