"""A stopwatch for training time, which stands still while a run saves or evaluates."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of training, begun at `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._before, self._began = seconds, 0.0
        self._running = False

    @property
    def seconds(self) -> float:
        """Time on the clock now."""
        return self._before + (time.perf_counter() - self._began if self._running else 0.0)

    def start(self) -> None:
        """Go on counting."""
        self._began, self._running = time.perf_counter(), True

    def stop(self) -> None:
        """Stand still."""
        self._before, self._running = self.seconds, False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()
