"""A trace of some training steps for Perfetto or TensorBoard, and the operators that took longest."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from windtunnel.checkpoint import write_atomically, write_json

SKIPPED = 2  # steps before the first that is recorded: they allocate and load what later ones find
_LISTED = 25


class StepProfiler:
    """Records `steps` steps of a session, from its third on, into `folder`/profile.

    trace.pt.trace.json: the trace, as Perfetto (ui.perfetto.dev) and TensorBoard's profile plugin read it.
    operators.json:      the operators by their own time, in microseconds.
    """

    def __init__(self, folder: Path, steps: int, cuda: bool) -> None:
        self._folder, self._steps, self._cuda = folder / "profile", steps, cuda
        self._seen = 0
        self._running: Any = None

    def before_step(self) -> None:
        """Begin when the time has come, or end."""
        if self._seen == SKIPPED:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
            self._running = profile(activities=activities, acc_events=True)
            self._running.start()
        elif self._seen == SKIPPED + self._steps:
            self.close()
        self._seen += 1

    def close(self) -> None:
        """Write what was recorded, if anything is being recorded."""
        if self._running is None:
            return
        recorded, self._running = self._running, None
        if self._cuda:
            torch.cuda.synchronize()
        recorded.stop()
        self._folder.mkdir(exist_ok=True)
        path = self._folder / "trace.pt.trace.json"
        write_atomically(path, lambda partial: recorded.export_chrome_trace(str(partial)))
        steps = min(self._steps, self._seen - SKIPPED)
        write_json(self._folder / "operators.json", {"steps": steps, "operators": self._operators(recorded)})

    def _operators(self, recorded: Any) -> list[dict[str, Any]]:
        rows = [
            {
                "operator": each.key,
                "calls": each.count,
                "cpu_us": each.self_cpu_time_total,
                "device_us": each.self_device_time_total if self._cuda else None,
            }
            for each in recorded.key_averages()
        ]
        rows.sort(key=lambda row: -float(row["device_us"] or row["cpu_us"]))
        whole = {name: sum(row[name] or 0.0 for row in rows) for name in ("cpu_us", "device_us")}
        leading = "device_us" if whole["device_us"] else "cpu_us"
        return [{**row, "share": (row[leading] or 0.0) / max(whole[leading], 1e-9)} for row in rows[:_LISTED]]


def read_operators(folder: Path) -> dict[str, Any]:
    """What a profiled run left: the number of recorded steps, and the operators, slowest first."""
    found: dict[str, Any] = json.loads((folder / "profile" / "operators.json").read_text())
    return found
