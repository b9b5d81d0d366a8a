"""A run in progress: segments of the schedule in order, with rows logged, states saved and horizons evaluated."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from windtunnel.checkpoint import Checkpoint, read_index
from windtunnel.errors import InputError, WorkError
from windtunnel.training.clock import Clock
from windtunnel.training.folder import RunFolder, Saved
from windtunnel.training.horizons import Horizons, learning
from windtunnel.training.interruption import Interrupted, Signals
from windtunnel.training.logs import EventLog, MetricsLog, NoLog
from windtunnel.training.loop import Snapshot, Step, Trainer
from windtunnel.training.profile import StepProfiler
from windtunnel.training.progress import Progress, Report
from windtunnel.training.schedule import Segment, segments
from windtunnel.training.spikes import NEARBY, is_milestone, milestone
from windtunnel.training.state import State
from windtunnel.training.watch import WINDOW

_SAVE, _STOP, _FAILED = 1, 2, 1000
_REPORT_SECONDS, _FETCH_SECONDS = 0.2, 0.5


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
    profiler: StepProfiler | None = None


class Session:
    """Carries a trainer through every segment; `run` returns when all horizons are evaluated or the run diverged."""

    def __init__(
        self, trainer: Trainer, folder: RunFolder, horizons: Horizons, signals: Signals, options: Options
    ) -> None:
        self.trainer, self.folder, self.horizons = trainer, folder, horizons
        self.signals, self.options, self.settings = signals, options, trainer.settings
        self.plan = segments(self.settings)
        self.state, self.clock = State(), Clock()
        self.team = folder.team
        self.diverged = False
        self._base: Snapshot | None = None
        self._pending: list[tuple[dict[str, Any], Step]] = []
        self._latest: float | None = None
        self._fetched_seconds = 0.0
        self._saved_at = self._reported_at = self._fetched_at = time.monotonic()
        self._resume()
        self._began = (self._tokens_done(), self.total_seconds)

    @property
    def total_seconds(self) -> float:
        """Training time so far, all branches included, evaluation and saving excluded."""
        return self.state.branch_seconds + self.clock.seconds

    def run(self) -> None:
        """Train to the end. Raises `Interrupted` after saving if a signal or `stop()` asks for it."""
        self.log: MetricsLog | NoLog = NoLog()
        if self.team.lead:
            self.log = MetricsLog(self.folder.path / "metrics.jsonl", self.state.metrics_bytes)
        written = self.options.events and self.team.lead
        self.events = EventLog(self.folder.path / "events", self.state.step) if written else None
        try:
            while self.state.segment < len(self.plan) and not self.diverged:
                self._run_segment(self.plan[self.state.segment])
            self.folder.writer.wait()
        finally:
            self.folder.writer.close()
            if self.options.profiler is not None:
                self.options.profiler.close()
            self.log.close()
            if self.events is not None:
                self.events.close()

    def _resume(self) -> None:
        if not self.folder.saved:
            return
        self._drop_what_skips_change()
        last = self.folder.saved[-1]
        checkpoint = self._load(last)
        self.trainer.restore(checkpoint.tensors, checkpoint.folder)
        self.state = State.from_json(checkpoint.record["state"])
        self.trainer.skips = self.state.skips
        self.trainer.data.waited = self.state.data_seconds
        self.clock = Clock(self.state.seconds)
        if last.base is not None:
            base = checkpoint if last.base == last.name else self.folder.load(last.base)
            self._base = base.tensors

    def _drop_what_skips_change(self) -> None:
        """Delete checkpoints that were trained on data which the settings now pass over."""
        changed = [each for each in self.folder.saved if self._skips_change(each)]
        if len(changed) == len(self.folder.saved):
            raise InputError(
                f"{self.folder.path}: no checkpoint is kept from before the data that is now to be passed over; the "
                f"first is {self.folder.saved[0].name}; skip from there on, or begin again in another folder"
            )
        self.folder.discard(changed)

    def _skips_change(self, saved: Saved) -> bool:
        record = read_index(self.folder.checkpoints / saved.name)["record"]["state"]
        furthest = max([saved.step, *(each.stop for each in self.plan[: saved.segment])])
        old, new = record.get("planned_skips", []), self.settings.skips
        return [tuple(skip) for skip in old if skip[0] < furthest] != [skip for skip in new if skip[0] < furthest]

    def _load(self, saved: Saved) -> Checkpoint:
        try:
            return self.folder.load(saved.name, ("model", "optimiser"))
        except InputError as error:
            earlier = self.folder.saved[-2].name if len(self.folder.saved) > 1 else "the beginning"
            remedy = f"delete {self.folder.checkpoints / saved.name} to go on from {earlier}"
            raise InputError(f"{error}; {remedy}") from error

    def _run_segment(self, segment: Segment) -> None:
        if segment.branch and self.state.step == segment.start:
            self._base = self.trainer.snapshot()
            if self.state.trunk is None:
                self.state.leave_trunk(self.clock.seconds)
                self._save(segment, self._base)
        self.clock.start()
        self._fetched_seconds = self.clock.seconds
        while self.state.step < segment.stop and not self.diverged:
            self._keep_for_rewinding(segment)
            self._pause_if_asked(segment)
            self._advance(segment)
        self.trainer.execution.synchronize()
        self.clock.stop()
        if not self.diverged and segment.horizon is not None:
            self._finish_horizon(segment, segment.horizon)
        if not self.diverged:
            self._leave(segment)

    def _advance(self, segment: Segment) -> None:
        if self.options.profiler is not None:
            self.options.profiler.before_step()
        step = self.trainer.advance(self.state.step, segment.horizon)
        self.state.step += 1
        self._pending.append((self._row(segment, step.rate), step))
        if self.horizons.probed_at(self.state.step, segment.horizon):
            self._probe(segment)
        boundary = self.state.step % WINDOW == 0 or self.state.step == segment.stop
        now = time.monotonic()
        if boundary or step.loss.device.type == "cpu" or now - self._fetched_at > _FETCH_SECONDS:
            self._fetch()
        if boundary and not self._rewind(segment):
            self.diverged = self.state.watch.judge()
        last = segment is self.plan[-1] and self.state.step == segment.stop
        if self.options.report is not None and (last or now - self._reported_at > _REPORT_SECONDS):
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
        answers = [(step.loss.item(), step.norm.item()) for _, step in pending]
        shares = self._utilisation([row for row, _ in pending])
        for (row, step), (loss, norm) in zip(pending, answers, strict=True):
            row |= {"loss": loss, "grad_norm": norm, **shares}
            if step.layers:
                row["layers"] = {name: value.tolist() for name, value in step.layers.items()}
            self.state.watch.observe(row["step"], row["loss"], row["grad_norm"])
            if self.settings.spikes is not None:
                self.state.detector.observe(self.settings.spikes, row["step"], row["loss"], row["grad_norm"])
            self._latest = row["loss"]
            self._write(row)
        self._fetched_at = time.monotonic()

    def _probe(self, segment: Segment) -> None:
        """Score the model on the way."""
        self._fetch()
        self.trainer.execution.synchronize()
        with self.clock.paused():
            scores = self.horizons.workload.probe(self.trainer.model)
            self.state.probes.append({"step": self.state.step, **scores})
            self._write({"step": self.state.step, "horizon": segment.horizon, **scores})

    def _utilisation(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Model and hardware FLOPs of some steps over what the peak would have done since the ones before (MFU, HFU).

        Without a peak nothing is said. Steps that a GPU was asked for together have the same shares.
        """
        before, self._fetched_seconds = self._fetched_seconds, self.clock.seconds
        model, hardware, peak = self.options.model_flops, self.options.hardware_flops, self.options.peak
        if peak is None or model is None or hardware is None:
            return {}
        counted = self.settings.tokens_before
        tokens = sum(row["tokens"] - counted(row["step"] - 1) for row in rows)
        possible = max(self._fetched_seconds - before, 1e-9) * peak
        return {"mfu": model * tokens / possible, "hfu": hardware * tokens / possible}

    def _write(self, row: dict[str, Any]) -> None:
        self.log.append(row)
        if self.events is not None:
            self.events.append(row)

    def _pause_if_asked(self, segment: Segment) -> None:
        wish = self.team.largest(self._wish())
        if wish == 0:
            return
        if wish == _FAILED:
            self.folder.writer.wait()
            raise WorkError(f"{self.folder.path}: a checkpoint could not be written by another process")
        self._fetch()
        self.trainer.execution.synchronize()
        with self.clock.paused():
            self._save(segment, self.trainer.snapshot())
        if wish >= _STOP:
            self.folder.writer.wait()
            raise Interrupted(self.folder.path, self.state.step, wish - _STOP or None)

    def _wish(self) -> int:
        """What this process wants before a step: to go on, to save, or to stop, and for which signal or failure."""
        if self.folder.writer.failed:
            return _FAILED
        if self.signals.received is not None or (self.options.stop is not None and self.options.stop()):
            return _STOP + (self.signals.received or 0)
        due = time.monotonic() - self._saved_at >= self.options.save_seconds
        return _SAVE if due and self.team.lead else 0

    def _position(self, segment: Segment, step: int) -> Saved:
        name = f"step-{step}"
        if segment.branch and step > segment.start:
            name += f"-branch-{segment.horizon}"
        elif step == segment.start and self.state.segment and self.plan[self.state.segment - 1].branch:
            name += "-again"  # the branch's checkpoints need the one of the same step before it
        return Saved(self.state.segment, step, name, f"step-{segment.start}" if segment.branch else None)

    def _save(self, segment: Segment, snapshot: Snapshot) -> None:
        self.state.metrics_bytes = self.log.settle()
        self.state.seconds = self.clock.seconds
        self.state.data_seconds = self.trainer.data.waited
        self.state.planned_skips = list(self.settings.skips)
        position = self._position(segment, self.state.step)
        needed, record = self._milestones(segment), self.state.to_json()
        self.folder.save(position, snapshot, record, self.options.keep, needed, first=self.log.sync)
        self._saved_at = time.monotonic()

    def _milestones(self, segment: Segment) -> list[Saved]:
        """Checkpoints that a spike not yet told might go back to."""
        if self.settings.spikes is None:
            return []
        rewind = self.settings.rewind_steps
        first = milestone(segment.start, self.state.step - WINDOW - NEARBY, rewind)
        return [
            each
            for each in self.folder.saved
            if each.segment == self.state.segment
            and each.step >= first
            and is_milestone(segment.start, each.step, rewind)
        ]

    def _keep_for_rewinding(self, segment: Segment) -> None:
        """Save at the steps that a rewind may go to; which they are depends on the settings alone."""
        if self.settings.spikes is None or self._position(segment, self.state.step) in self.folder.saved:
            return
        if is_milestone(segment.start, self.state.step, self.settings.rewind_steps):
            self._fetch()
            self.trainer.execution.synchronize()
            with self.clock.paused():
                self._save(segment, self.trainer.snapshot())

    def _rewind(self, segment: Segment) -> bool:
        """Go back before a spike, if there was one, and pass over the data that was seen; returns whether it did."""
        spikes, onset, judged = self.settings.spikes, self.state.detector.onset, self.state.step
        if spikes is None or onset is None or len(self.state.rewinds) >= spikes.tries:
            return False
        to = milestone(segment.start, onset, self.settings.rewind_steps)
        with self.clock.paused():
            self.folder.writer.wait()
            checkpoint = self._load(self._position(segment, to))
            self.trainer.restore(checkpoint.tensors, checkpoint.folder)
            first = self.trainer.sequences_at(to).start
            passed = self.settings.sequences_in(to, to + max(self.settings.skip_steps, judged - to))
            account: dict[str, Any] = {"spike": onset, "judged": judged, "to": to, "horizon": segment.horizon}
            account["sequences"] = [first, first + passed]
            self._go_on_from(State.from_json(checkpoint.record["state"]), (to, passed), account)
            self.folder.discard([each for each in self.folder.saved if each > self._position(segment, to)])
            self._save(segment, checkpoint.tensors)
            self.folder.note("rewinds", self.state.rewinds)
        return True

    def _go_on_from(self, earlier: State, skip: tuple[int, int], account: dict[str, Any]) -> None:
        """Take up an earlier state with one more skip; time, log and accounts run on."""
        earlier.rewinds = [*self.state.rewinds, account]
        earlier.skips.append(skip)
        earlier.branch_seconds = self.state.branch_seconds
        self.state, self.trainer.skips = earlier, earlier.skips
        self.log.append({"step": earlier.step, "horizon": account["horizon"], "rewind": account})
        if self.events is not None:
            self.events.rewind(account["horizon"], earlier.step)

    def _finish_horizon(self, segment: Segment, horizon: float) -> None:
        name = f"step-{segment.stop}" + (f"-horizon-{horizon}" if segment.branch else "")
        scores = self.horizons.evaluate(self.trainer.scorer)
        if scores is None:
            self.diverged = True
            return
        self.team.led(lambda: self.horizons.store(horizon, scores))
        result = {
            "steps": segment.stop,
            "tokens": self.settings.tokens_before(segment.stop),
            **scores.figures(),
            "seconds": self.clock.seconds,
            "checkpoint": f"checkpoints/{name}",
            "imputed": False,
            **self.horizons.workload.by_set(scores),
            **(learning(self.state.probes) if horizon == 1.0 else {}),
        }
        self.folder.save_final(name, self.trainer.snapshot(), result)
        self.state.horizons[str(horizon)] = result
        row = {"step": segment.stop, "horizon": horizon, "tokens": result["tokens"]}
        told: dict[str, Any] = {name: result[name] for name in ("bits_per_byte", "accuracy", "sets") if name in result}
        self._write({**row, "evaluation_loss": result["loss"], **told})

    def _leave(self, segment: Segment) -> None:
        """Go on to the next segment, from the trunk's state if this was a branch."""
        if segment.branch:
            assert self._base is not None
            self.trainer.restore(self._base, self.folder.path)
            self.clock = Clock(self.state.rejoin_trunk(segment.start, self.clock.seconds))
            self.trainer.skips, self._base = self.state.skips, None
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
