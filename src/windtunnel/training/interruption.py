"""Ctrl-C and SIGTERM during a run: finish the step, save, leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from windtunnel.errors import WorkError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(WorkError):
    """A run was asked to stop, and saved its state first. `signal` is None if `stop()` asked."""

    def __init__(self, folder: Path, step: int, signal_number: int | None) -> None:
        self.folder, self.step, self.signal = folder, step, signal_number
        by = signal.Signals(signal_number).name if signal_number else "request"
        super().__init__(f"{folder}: stopped by {by} at step {step}; its state is saved: run it again with --resume")


class Signals:
    """Which signal has arrived, if any."""

    def __init__(self) -> None:
        self.received: int | None = None


@contextmanager
def noted_signals(again: bool = False) -> Iterator[Signals]:
    """Note the first SIGINT or SIGTERM instead of dying of it; a second one acts as it always does.

    again: note all of them: torchrun passes on what its processes were sent already, and kills what does not end.
    Outside the main thread, where Python allows no handlers, nothing is noted.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, _: FrameType | None) -> None:
        signals.received = number
        for each, handler in () if again else previous.items():
            signal.signal(each, handler)

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
