"""Writing behind the loop's back: one job at a time, in a thread of its own."""

import threading
from collections.abc import Callable


class Writer:
    """Runs jobs in order, each in a thread while the caller goes on; the next one waits for the one before.

    What a job raises is raised by the next call of `wait` or `submit`. background: False runs jobs at once.
    """

    def __init__(self, background: bool) -> None:
        self._background = background
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Wait for the job before, then begin this one."""
        self.wait()
        if not self._background:
            job()
            return
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint")
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether a job raised what has not been raised here yet; takes no time."""
        return self._error is not None

    def wait(self) -> None:
        """Return when nothing is being written; raise what the job raised."""
        self.close()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Return when nothing is being written, whatever became of it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self._error = error
