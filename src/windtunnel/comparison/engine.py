"""Carrying out a study: tuning trials, reported runs, throughput, results. Interrupted, it goes on where it stopped."""

import datetime
import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from windtunnel.checkpoint import write_json
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.jobs import total_tokens, training_job
from windtunnel.comparison.looks import undecided, write_look
from windtunnel.comparison.pool import Job, LocalPool, Outcome, Pool
from windtunnel.comparison.results import assemble
from windtunnel.comparison.study import Study, save_study
from windtunnel.comparison.throughput import throughput_job
from windtunnel.comparison.tuning import Choice, Trial, choose, next_trials
from windtunnel.comparison.work import Notify, Work
from windtunnel.errors import InputError
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Workload

_BRACKET_MOVES = 2


@dataclass
class _Sweep:
    """The trials of one arm."""

    arm: Arm
    trials: list[Trial] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    initial_loss: float | None = None
    error: str = ""


def run_study(
    study: Study,
    folder: Path,
    progress: Notify | None = None,
    pool: Pool[Any] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Carry out a study in its folder and return the results. Raises `WorkError` if no comparison could be made.

    pool: where its jobs run, such as `cluster.RayPool`; else as many processes of this machine as `workers` says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pool = pool or local_pool(study.device, workers)
    with locked(folder):
        read = study.workload.address().get("folder")
        pool.prepare(folder, None if read is None else Path(read))
        save_study(study, folder, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        engine = _Engine(study, folder, pool, progress)
        engine.tune()
        for look in range(1, study.looks + 1):
            write_look(folder, look)
            engine.study = replace(study, look=look)
            engine.train()
            engine.time()
            results = assemble(folder)
            if look == study.looks or not undecided(results):
                break
        return results


def local_pool(kind: str, workers: int | None = None, device: str = "auto") -> LocalPool:
    """One process a core on a CPU, one a device on GPUs of kind "cuda"; `device` "cuda:1" takes that one alone."""
    if kind != "cuda":
        return LocalPool(workers or os.cpu_count() or 1)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]
    if ":" in device:
        devices = [devices[int(device.split(":")[1])]]
    return LocalPool(workers or len(devices), devices)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of a study's folder."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{folder}: another process is working on this study; wait for it, or use another --out"
            ) from None
        yield


class _Engine(Work):
    def __init__(self, study: Study, folder: Path, pool: Pool[Any], notify: Notify | None) -> None:
        super().__init__(folder, pool, notify)
        self.study = study
        self.choices: dict[str, Choice] = {}

    def tune(self) -> None:
        """Sweep every arm that has trials of its own, all arms side by side; write `tuning.json`."""
        sweeps = {arm.label: _Sweep(arm) for arm in self.study.arms if not arm.control}
        while jobs := self._next_jobs(sweeps):
            for outcome in self.run("tuning", [job for job, *_ in jobs]):
                sweep, lr = next((sweep, lr) for job, sweep, lr in jobs if job == outcome.job)
                self._note_trial(sweep, lr, outcome)
        for sweep in sweeps.values():
            if sweep.trials:
                rule = self.study.rule(sweep.arm, sweep.initial_loss or float("inf"))
                self.choices[sweep.arm.label] = choose(sweep.trials, rule)
        if self.study.design.bracket and self.study.design.tuning_fraction < 1:
            self._bracket(sweeps)
        record = {
            label: {**self.choices[label].__dict__, "initial_loss": sweep.initial_loss, "rows": sweep.rows}
            for label, sweep in sweeps.items()
            if label in self.choices
        }
        write_json(self.folder / "tuning.json", {"arms": record, "failures": self.failures})

    def train(self) -> None:
        """All reported runs; failures are written to `failures.json` and leave the other runs alone."""
        jobs: dict[str, str] = {}
        work: list[Job] = []
        for seed_index in range(self.study.seeds_at_look):
            for arm in self.study.arms:
                choice = self.choices.get(arm.tuned_as)
                if choice is not None:
                    seed = self.study.seeds(arm)[seed_index]
                    for name, settings in self.study.all_settings(arm, choice.lr, seed).items():
                        work.append(
                            self._job(self.folder / "runs" / arm.label / name, arm, settings, self.study.workload)
                        )
                        jobs[work[-1].name] = arm.label
        for outcome in self.run("runs", work):
            if outcome.result is None:
                self.fail(jobs[outcome.job.name], outcome)
        write_json(self.folder / "failures.json", {"failures": self.failures})

    def time(self) -> None:
        """Throughput of all arms side by side, in one process with nothing beside it; done once a study."""
        path = self.folder / "throughput.json"
        if path.is_file() or self.study.task is not None:  # speed is a question for texts
            return
        design = self.study.design
        arms = [arm for arm in self.study.arms if (self.folder / "runs" / arm.label).is_dir()]
        settings = [self.study.run_settings(arm, 1e-4, 1).replace(ramp=()) for arm in arms]  # steps of full size
        job = throughput_job(
            arms, settings, self.study.baseline, design.blocks, self.study.workload, self.study.execution
        )
        for outcome in self.on("throughput", [job]):
            if outcome.result is None:
                self.fail("throughput", outcome)
                write_json(self.folder / "failures.json", {"failures": self.failures})
            else:
                write_json(path, outcome.result)

    def _next_jobs(self, sweeps: Mapping[str, _Sweep]) -> list[tuple[Job, _Sweep, float]]:
        jobs: list[tuple[Job, _Sweep, float]] = []
        for sweep in sweeps.values():
            if sweep.error:
                continue
            rule = self.study.rule(sweep.arm, sweep.initial_loss or float("inf"))
            fraction = self.study.design.tuning_fraction
            jobs += [(self._trial(sweep.arm, lr, fraction), sweep, lr) for lr in next_trials(sweep.trials, rule)]
        return jobs

    def _trial(self, arm: Arm, lr: float, fraction: float) -> Job:
        folder = self.folder / "trials" / arm.label / f"{fraction:g}D-lr-{lr:.4g}"
        return self._job(folder, arm, self.study.trial_settings(arm, lr, fraction), self.study.workload.for_tuning())

    def _note_trial(self, sweep: _Sweep, lr: float, outcome: Outcome) -> None:
        if outcome.result is None:
            self.fail(sweep.arm.label, outcome)
            sweep.error = outcome.error
            return
        trial = self._read_trial(sweep, lr, outcome.result, self.study.design.tuning_fraction)
        sweep.trials.append(trial)
        sweep.trials.sort(key=lambda one: one.lr)

    def _read_trial(self, sweep: _Sweep, lr: float, result: Mapping[str, Any], fraction: float) -> Trial:
        end = result["horizons"]["1.0"]
        loss = float(end["loss"])
        sweep.initial_loss = result["initial_loss"] or sweep.initial_loss
        row = {"lr": lr, "loss": loss, "diverged": result["diverged"], "horizon": fraction}
        sweep.rows.append(row | {name: end[name] for name in ("accuracy",) if name in end})
        sweep.rows.sort(key=lambda row: (row["horizon"], row["lr"]))
        return Trial(lr, loss, bool(result["diverged"]))

    def _bracket(self, sweeps: Mapping[str, _Sweep]) -> None:
        """Half and twice the chosen rate at the full budget, for every arm; move where a neighbour is better."""
        scores: dict[str, dict[float, float]] = {label: {} for label in self.choices}
        for _ in range(_BRACKET_MOVES):
            jobs = [
                (self._trial(sweeps[label].arm, lr, 1.0), label, lr)
                for label, choice in self.choices.items()
                for lr in (choice.lr / 2, choice.lr, choice.lr * 2)
                if not any(math.isclose(lr, tried, rel_tol=1e-6) for tried in scores[label])
            ]
            for outcome in self.run("bracket", [job for job, *_ in jobs]):
                label, lr = next((label, lr) for job, label, lr in jobs if job == outcome.job)
                if outcome.result is None:
                    self.fail(label, outcome)
                else:
                    scores[label][lr] = self._read_trial(sweeps[label], lr, outcome.result, 1.0).loss
            for label in scores:
                self._move(label, scores[label])

    def _move(self, label: str, scores: Mapping[float, float]) -> None:
        choice = self.choices[label]
        best = min(scores, key=lambda lr: scores[lr], default=choice.lr)
        if not math.isclose(best, choice.lr, rel_tol=1e-6):
            reason = f"moved by the check at D from {choice.lr:.3g}"
            self.choices[label] = replace(choice, lr=best, reason=reason)

    def _job(self, folder: Path, arm: Arm, settings: TrainingSettings, workload: Workload) -> Job:
        return training_job(folder, arm, settings, workload, self.study.execution)


def planned_tokens(study: Study) -> dict[str, int]:
    """Tokens that a study will train by arm: the grid's trials, one trial beyond its edge, all runs of a first look."""
    plan = {}
    for arm in study.arms:
        runs = sum(
            total_tokens(settings)
            for seed in study.seeds(arm)
            for settings in study.all_settings(arm, 1e-3, seed).values()
        )
        extra = 1 + 2 * study.design.refine + 6 * study.design.bracket
        trials = 0 if arm.control else study.design.trials + min(study.design.edge_cap, extra)
        trial = total_tokens(study.trial_settings(arm, 1e-3, study.design.tuning_fraction))
        plan[arm.label] = runs + trials * trial
    return plan
