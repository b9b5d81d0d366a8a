"""A run in progress: segments of the schedule in order, with rows logged, states saved and horizons evaluated."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from windtunnel.checkpoint import Checkpoint, load
from windtunnel.errors import InputError
from windtunnel.training.clock import Clock
from windtunnel.training.folder import RunFolder, Saved
from windtunnel.training.horizons import Horizons
from windtunnel.training.interruption import Interrupted, Signals
from windtunnel.training.logs import EventLog, MetricsLog
from windtunnel.training.loop import Snapshot, Step, Trainer
from windtunnel.training.progress import Progress, Report
from windtunnel.training.schedule import Segment, segments
from windtunnel.training.watch import WINDOW, Watch

_REPORT_SECONDS, _FETCH_SECONDS = 0.2, 0.5


@dataclass
class State:
    """What a checkpoint remembers besides tensors.

    seconds: training time of the line that leads here, the trunk and at most one branch; branch_seconds: that of
    branches already left. horizons: their results.
    """

    segment: int = 0
    step: int = 0
    seconds: float = 0.0
    branch_seconds: float = 0.0
    metrics_bytes: int = 0
    watch: Watch = field(default_factory=Watch)
    horizons: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        names = ("segment", "step", "seconds", "branch_seconds", "metrics_bytes", "horizons")
        return {**{name: getattr(self, name) for name in names}, "watch": self.watch.to_json()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "State":
        return cls(**{**record, "watch": Watch(**record["watch"])})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a caller chooses about a run without changing it; costs are training FLOPs per token."""

    stop: Callable[[], bool] | None = None
    report: Report | None = None
    save_seconds: float = 60.0
    keep: int = 2
    events: bool = True
    model_flops: float | None = None
    hardware_flops: float | None = None
    peak: float | None = None


class Session:
    """Carries a trainer through every segment; `run` returns when all horizons are evaluated or the run diverged."""

    def __init__(
        self, trainer: Trainer, folder: RunFolder, horizons: Horizons, signals: Signals, options: Options
    ) -> None:
        self.trainer, self.folder, self.horizons = trainer, folder, horizons
        self.signals, self.options, self.settings = signals, options, trainer.settings
        self.plan = segments(self.settings)
        self.state, self.clock = State(), Clock()
        self.diverged = False
        self._base: tuple[Snapshot, float] | None = None
        self._pending: list[tuple[dict[str, Any], Step]] = []
        self._latest: float | None = None
        self._saved_at = self._reported_at = self._fetched_at = time.monotonic()
        self._resume()
        self._began = (self._tokens_done(), self.total_seconds)

    @property
    def total_seconds(self) -> float:
        """Training time so far, all branches included, evaluation and saving excluded."""
        return self.state.branch_seconds + self.clock.seconds

    def run(self) -> None:
        """Train to the end. Raises `Interrupted` after saving if a signal or `stop()` asks for it."""
        self.log = MetricsLog(self.folder.path / "metrics.jsonl", self.state.metrics_bytes)
        self.events = EventLog(self.folder.path / "events", self.state.step) if self.options.events else None
        try:
            while self.state.segment < len(self.plan) and not self.diverged:
                self._run_segment(self.plan[self.state.segment])
        finally:
            self.log.close()
            if self.events is not None:
                self.events.close()

    def _resume(self) -> None:
        if not self.folder.saved:
            return
        last = self.folder.saved[-1]
        checkpoint = self._load(last)
        self.trainer.restore(checkpoint.tensors, checkpoint.folder)
        self.state = State.from_json(checkpoint.record["state"])
        self.clock = Clock(self.state.seconds)
        if last.base is not None:
            base = checkpoint if last.base == last.name else load(self.folder.checkpoints / last.base)
            self._base = (base.tensors, base.record["state"]["seconds"])

    def _load(self, saved: Saved) -> Checkpoint:
        try:
            return load(self.folder.checkpoints / saved.name, ("model", "optimiser"))
        except InputError as error:
            earlier = self.folder.saved[-2].name if len(self.folder.saved) > 1 else "the beginning"
            remedy = f"delete {self.folder.checkpoints / saved.name} to go on from {earlier}"
            raise InputError(f"{error}; {remedy}") from error

    def _run_segment(self, segment: Segment) -> None:
        if segment.branch and self.state.step == segment.start:
            self._base = (self.trainer.snapshot(), self.clock.seconds)
            self._save(segment, self._base[0])
        self.clock.start()
        while self.state.step < segment.stop and not self.diverged:
            self._pause_if_asked(segment)
            self._advance(segment)
        self.trainer.execution.synchronize()
        self.clock.stop()
        if not self.diverged and segment.horizon is not None:
            self._finish_horizon(segment, segment.horizon)
        if not self.diverged:
            self._leave(segment)

    def _advance(self, segment: Segment) -> None:
        step = self.trainer.advance(self.state.step, segment.horizon)
        self.state.step += 1
        self._pending.append((self._row(segment, step.rate), step))
        boundary = self.state.step % WINDOW == 0 or self.state.step == segment.stop
        now = time.monotonic()
        if boundary or step.loss.device.type == "cpu" or now - self._fetched_at > _FETCH_SECONDS:
            self._fetch()
        if boundary:
            self.diverged = self.state.watch.judge()
        if self.options.report is not None and now - self._reported_at > _REPORT_SECONDS:
            self._report(segment, self.options.report)

    def _row(self, segment: Segment, rate: float) -> dict[str, Any]:
        tokens = self.settings.tokens_before(self.state.step)
        model, hardware = self.options.model_flops, self.options.hardware_flops
        return {
            "step": self.state.step,
            "horizon": segment.horizon,
            "tokens": tokens,
            "model_flops": None if model is None else model * tokens,
            "hw_flops": None if hardware is None else hardware * tokens,
            "train_seconds": round(self.clock.seconds, 4),
            "lr": rate,
        }

    def _fetch(self) -> None:
        """Bring losses and norms from the device; a GPU is asked for many at once, since each answer stalls it."""
        pending, self._pending = self._pending, []
        for row, step in pending:
            row["loss"], row["grad_norm"] = step.loss.item(), step.norm.item()
            if step.layers:
                row["layers"] = {name: value.tolist() for name, value in step.layers.items()}
            self.state.watch.observe(row["step"], row["loss"], row["grad_norm"])
            self._latest = row["loss"]
            self._write(row)
        self._fetched_at = time.monotonic()

    def _write(self, row: dict[str, Any]) -> None:
        self.log.append(row)
        if self.events is not None:
            self.events.append(row)

    def _pause_if_asked(self, segment: Segment) -> None:
        asked = self.signals.received is not None or (self.options.stop is not None and self.options.stop())
        if not asked and time.monotonic() - self._saved_at < self.options.save_seconds:
            return
        self._fetch()
        self.trainer.execution.synchronize()
        with self.clock.paused():
            self._save(segment, self.trainer.snapshot())
        if asked:
            raise Interrupted(self.folder.path, self.state.step, self.signals.received)

    def _save(self, segment: Segment, snapshot: Snapshot) -> None:
        self.state.metrics_bytes = self.log.settle()
        self.state.seconds = self.clock.seconds
        trunk = f"step-{segment.start}"
        name = f"step-{self.state.step}"
        if segment.branch and self.state.step > segment.start:
            name += f"-branch-{segment.horizon}"
        position = Saved(self.state.segment, self.state.step, name, trunk if segment.branch else None)
        self.folder.save(position, snapshot, self.state.to_json(), self.options.keep)
        self._saved_at = time.monotonic()

    def _finish_horizon(self, segment: Segment, horizon: float) -> None:
        name = f"step-{segment.stop}" + (f"-horizon-{horizon}" if segment.branch else "")
        losses = self.horizons.evaluate(self.trainer.model)
        if losses is None:
            self.diverged = True
            return
        self.horizons.store(horizon, losses)
        result = {
            "steps": segment.stop,
            "tokens": self.settings.tokens_before(segment.stop),
            "loss": losses.loss,
            "bits_per_byte": losses.bits_per_byte,
            "evaluated_tokens": int(losses.tokens.sum()),
            "seconds": self.clock.seconds,
            "checkpoint": f"checkpoints/{name}",
            "imputed": False,
        }
        self.folder.save_final(name, self.trainer.snapshot(), result)
        self.state.horizons[str(horizon)] = result
        row = {"step": segment.stop, "horizon": horizon, "tokens": result["tokens"]}
        self._write({**row, "evaluation_loss": result["loss"], "bits_per_byte": result["bits_per_byte"]})

    def _leave(self, segment: Segment) -> None:
        """Go on to the next segment, from the trunk's state if this was a branch."""
        if segment.branch:
            assert self._base is not None
            snapshot, seconds = self._base
            self.trainer.restore(snapshot, self.folder.path)
            self.state.branch_seconds += self.clock.seconds - seconds
            self.clock = Clock(seconds)
            self.state.step, self._base = segment.start, None
        self.state.segment += 1

    def _tokens_done(self) -> int:
        """Tokens trained on, cooldown branches included."""
        done = sum(self._tokens(each, each.stop) for each in self.plan[: self.state.segment])
        if self.state.segment == len(self.plan):
            return done
        return done + self._tokens(self.plan[self.state.segment], self.state.step)

    def _tokens(self, segment: Segment, step: int) -> int:
        return self.settings.tokens_before(step) - self.settings.tokens_before(segment.start)

    def _report(self, segment: Segment, report: Report) -> None:
        done = self._tokens_done()
        total = sum(self._tokens(each, each.stop) for each in self.plan)
        first, began = self._began
        rate = (done - first) / max(self.total_seconds - began, 1e-9)  # tokens a second
        flops, peak = self.options.model_flops, self.options.peak
        report(
            Progress(
                tokens=done,
                total=total,
                loss=self._latest,
                tokens_per_second=rate,
                utilisation=None if flops is None or peak is None else flops * rate / peak,
                seconds_left=(total - done) / rate if rate > 0 else None,
                horizon=segment.horizon,
            )
        )
        self._reported_at = time.monotonic()
