"""Carrying out a ladder: sweeps, a rule for each arm, its check, the runs, results. Interrupted, it goes on."""

import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.checkpoint import write_json
from windtunnel.comparison.engine import local_pool, locked
from windtunnel.comparison.jobs import training_job
from windtunnel.comparison.ladders.bill import Bill, estimate
from windtunnel.comparison.ladders.ladder import Ladder, Rung, save_ladder
from windtunnel.comparison.ladders.rates import Point, RateRule, fit_rule
from windtunnel.comparison.ladders.results import assemble
from windtunnel.comparison.pool import Job, Outcome, Pool
from windtunnel.comparison.tuning import Choice, Trial, TuningRule, choose, next_trials
from windtunnel.comparison.work import Notify, Work
from windtunnel.training.settings import TrainingSettings

_CHECK_WEIGHT = 2.0
_NEAR = 0.5  # octaves within which the rule must come to what the check found
_MILLISECONDS = 1e3  # the weight of a job is what it is expected to take


@dataclass
class Sweep:
    """Trials at one rung."""

    rung: Rung
    centre: float
    trials: list[Trial] = field(default_factory=list)
    initial_loss: float = math.inf
    error: str = ""

    def note(self, lr: float, result: dict[str, Any]) -> None:
        """Take a finished trial."""
        self.initial_loss = result["initial_loss"] or self.initial_loss
        self.trials.append(Trial(lr, float(result["horizons"]["1.0"]["loss"]), bool(result["diverged"])))
        self.trials.sort(key=lambda one: one.lr)


@dataclass
class Tuned:
    """One arm's rule, from its sweeps and its check. `moved`: how often the check moved the rate."""

    sweeps: list[Sweep]
    rule: RateRule
    check: Sweep
    moved: int = 0
    agreed: bool = False


def run_ladder(
    ladder: Ladder,
    folder: Path,
    progress: Notify | None = None,
    pool: Pool[Any] | None = None,
    workers: int | None = None,
    bill: Bill | None = None,
) -> dict[str, Any]:
    """Carry out a ladder in its folder and return its results. Raises `WorkError` if no run could be made.

    pool: where its jobs run, such as `cluster.RayPool`; else as many processes of this machine as `workers` says.
    bill: what was announced; without it rates are measured for the order of work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pool = pool or local_pool(ladder.sizes[0].device, workers)
    with locked(folder):
        read = ladder.workload.address().get("folder")
        pool.prepare(folder, None if read is None else Path(read))
        save_ladder(ladder, folder, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        engine = _Engine(ladder, folder, pool, progress, bill or estimate(ladder, pool.workers))
        engine.tune()
        engine.train()
        return assemble(folder)


class _Engine(Work):
    def __init__(self, ladder: Ladder, folder: Path, pool: Pool[Any], notify: Notify | None, bill: Bill) -> None:
        super().__init__(folder, pool, notify)
        self.ladder, self.bill = ladder, bill
        self.tuned: dict[str, Tuned] = {}

    def tune(self) -> None:
        """Sweep every arm at its rungs, fit its rule, check it at the largest budget; write `tuning.json`."""
        ladder = self.ladder
        sweeps = {arm: [Sweep(rung, self._centre(rung)) for rung in ladder.sweeps(arm)] for arm in ladder.labels}
        every = [sweep for own in sweeps.values() for sweep in own]
        while wanted := [(sweep, lr) for sweep in every for lr in self._next(sweep)]:
            self._try("sweeps", wanted)
        for arm, own in sweeps.items():
            done = [sweep for sweep in own if sweep.trials]
            if done:
                rung = ladder.check(arm)
                self.tuned[arm] = Tuned(done, fit_rule([self._point(one) for one in done]), Sweep(rung, 0.0))
        self._check()
        record = {arm: self._record(tuned) for arm, tuned in self.tuned.items()}
        write_json(self.folder / "tuning.json", {"arms": record, "failures": self.failures})

    def train(self) -> None:
        """One run a rung, then more seeds around each budget's best; failures leave the other runs alone."""
        rungs = [rung for rung in self.ladder.all_rungs() if rung.arm in self.tuned]
        losses: dict[Rung, float] = {}
        for rung, _, result in self._runs("runs", ((rung, 1) for rung in rungs)):
            losses[rung] = float(result["horizons"]["1.0"]["loss"])
        more = [
            (rung, seed)
            for rung in around_minima(self.ladder, losses)
            for seed in range(2, self.ladder.design.seeds + 1)
        ]
        for _ in self._runs("seeds", more):
            pass
        write_json(self.folder / "failures.json", {"failures": self.failures})

    def _check(self) -> None:
        """Half, once and twice the rule's rate at the largest budget; the best joins the fit, and is checked again."""
        for tuned in self.tuned.values():
            tuned.check.centre = self._rate(tuned, tuned.check.rung)
        for _ in range(self.ladder.design.moves + 1):
            wanted = [
                (tuned.check, lr)
                for tuned in self.tuned.values()
                if not tuned.agreed
                for lr in (tuned.check.centre / 2, tuned.check.centre, tuned.check.centre * 2)
                if not any(math.isclose(lr, trial.lr, rel_tol=1e-6) for trial in tuned.check.trials)
            ]
            self._try("check", wanted)
            for tuned in self.tuned.values():
                if not tuned.agreed and tuned.check.trials:
                    self._judge(tuned)
        for tuned in self.tuned.values():
            if tuned.check.trials:
                points = [self._point(one) for one in tuned.sweeps]
                tuned.rule = fit_rule([*points, self._point(tuned.check, _CHECK_WEIGHT)])
                tuned.agreed = tuned.agreed and abs(self._missed(tuned)) <= _NEAR

    def _judge(self, tuned: Tuned) -> None:
        """Whether the middle one of three is the best; where not, the centre moves to the one that is."""
        best = min(tuned.check.trials, key=lambda trial: (self._rule(tuned.check).score(trial), trial.lr))
        tuned.agreed = math.isclose(best.lr, tuned.check.centre, rel_tol=1e-6)
        if not tuned.agreed and tuned.moved < self.ladder.design.moves:
            tuned.moved += 1
            tuned.check.centre = best.lr

    def _rule(self, sweep: Sweep, refine: bool = True) -> TuningRule:
        design = self.ladder.design
        return TuningRule(
            centre=sweep.centre,
            initial_loss=sweep.initial_loss,
            points=design.trials,
            edge_cap=design.edge_cap,
            refine=refine,
        )

    def _next(self, sweep: Sweep) -> list[float]:
        return [] if sweep.error else next_trials(sweep.trials, self._rule(sweep, self.ladder.design.refine))

    def _choice(self, sweep: Sweep) -> Choice:
        return choose(sweep.trials, self._rule(sweep))

    def _missed(self, tuned: Tuned) -> float:
        """Octaves between the rule's rate at the largest budget and the best that was found there."""
        return math.log2(self._rate(tuned, tuned.check.rung) / self._choice(tuned.check).lr)

    def _point(self, sweep: Sweep, weight: float = 1.0) -> Point:
        """Where a sweep puts the best rate; the parabola around the best needs no half steps."""
        lr = self._choice(sweep).lr
        parameters = self.ladder.costs(sweep.rung).parameters.n_active
        return Point(parameters, self.ladder.tokens(sweep.rung), lr / self._centre(sweep.rung), weight)

    def _centre(self, rung: Rung) -> float:
        """The recipe's own rate at this width."""
        return self.ladder.sizes[rung.size].rule(self.ladder.arm(rung), math.inf).centre

    def _rate(self, tuned: Tuned, rung: Rung) -> float:
        """An arm's learning rate at a rung."""
        factor = tuned.rule.at(self.ladder.costs(rung).parameters.n_active, self.ladder.tokens(rung))
        return self._centre(rung) * factor

    def _try(self, phase: str, wanted: Iterable[tuple[Sweep, float]]) -> None:
        """Run trials; what fails ends its sweep."""
        jobs = {self._trial(sweep.rung, lr).name: (sweep, lr) for sweep, lr in wanted}
        for outcome in self.run(phase, [self._trial(sweep.rung, lr) for sweep, lr in jobs.values()]):
            sweep, lr = jobs[outcome.job.name]
            if outcome.result is None:
                self.fail(sweep.rung.arm, outcome)
                sweep.error = outcome.error
            else:
                sweep.note(lr, outcome.result)

    def _runs(self, phase: str, wanted: Iterable[tuple[Rung, int]]) -> Iterable[tuple[Rung, int, dict[str, Any]]]:
        jobs: dict[str, tuple[Job, Rung, int]] = {}
        for rung, seed in wanted:
            settings = self.ladder.run_settings(rung, self._rate(self.tuned[rung.arm], rung), seed)
            job = self._job(run_folder(self.folder, rung, seed), rung, settings)
            jobs[job.name] = (job, rung, seed)
        outcomes: Iterable[Outcome] = self.run(phase, [job for job, *_ in jobs.values()])
        for outcome in outcomes:
            _, rung, seed = jobs[outcome.job.name]
            if outcome.result is None:
                self.fail(rung.arm, outcome)
            else:
                yield rung, seed, outcome.result

    def _trial(self, rung: Rung, lr: float) -> Job:
        folder = self.folder / "trials" / rung.folder / f"lr-{lr:.4g}"
        return self._job(folder, rung, self.ladder.trial_settings(rung, lr))

    def _job(self, folder: Path, rung: Rung, settings: TrainingSettings) -> Job:
        study = self.ladder.sizes[rung.size]
        weight = _MILLISECONDS * self.bill.a_token[rung.arm, rung.size]
        return training_job(folder, self.ladder.arm(rung), settings, study.workload, study.execution, weight)

    def _record(self, tuned: Tuned) -> dict[str, Any]:
        return {
            "rule": tuned.rule.__dict__,
            "sweeps": [self._sweep_record(sweep) for sweep in tuned.sweeps],
            "check": self._check_record(tuned) if tuned.check.trials else None,
        }

    def _check_record(self, tuned: Tuned) -> dict[str, Any]:
        found = {"moved": tuned.moved, "agreed": tuned.agreed, "missed_octaves": self._missed(tuned)}
        return {**self._sweep_record(tuned.check), **found}

    def _sweep_record(self, sweep: Sweep) -> dict[str, Any]:
        choice = self._choice(sweep)
        return {
            **sweep.rung.__dict__,
            "lr": choice.lr,
            "at_edge": choice.at_edge,
            "untuned": choice.untuned,
            "initial_loss": sweep.initial_loss,
            "trials": [trial.__dict__ for trial in sweep.trials],
        }


def run_folder(folder: Path, rung: Rung, seed: int) -> Path:
    """Where a reported run is."""
    return folder / "runs" / rung.folder / f"seed-{seed}"


def around_minima(ladder: Ladder, losses: dict[Rung, float]) -> list[Rung]:
    """The three sizes around the lowest point of each budget's parabola in ln N, from the first seed's losses."""
    found: list[Rung] = []
    for arm in ladder.labels:
        for budget in range(len(ladder.design.budgets)):
            rungs = [rung for rung in ladder.rungs(arm, budget) if rung in losses]
            if len(rungs) >= 3:
                best = min(max(_lowest(ladder, rungs, losses), 1), len(rungs) - 2)
                found += rungs[best - 1 : best + 2]
    return found


def _lowest(ladder: Ladder, rungs: list[Rung], losses: dict[Rung, float]) -> int:
    logs = np.log([ladder.costs(rung).parameters.n_active for rung in rungs])
    second, first, _ = np.polyfit(logs - logs.mean(), [losses[rung] for rung in rungs], 2)
    if second <= 0:
        return int(np.argmin([losses[rung] for rung in rungs]))
    return int(np.argmin(np.abs(logs - logs.mean() + first / (2 * second))))
