"""`train`: one run, from settings to a run folder with its result."""

import functools
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from windtunnel import __version__
from windtunnel.checkpoint import read_json
from windtunnel.data.sampler import batch_hash
from windtunnel.data.shards import Dataset, default_cache
from windtunnel.data.tasks import Task
from windtunnel.distributed.sharding import build
from windtunnel.distributed.team import ALONE, Team
from windtunnel.errors import InputError
from windtunnel.execution import Execution, Resolved, measured_peak
from windtunnel.ledger import Ledger, keeps_maps, ledger
from windtunnel.root import Model
from windtunnel.training.fitting import check_memory, check_team
from windtunnel.training.folder import RESULT, RunFolder
from windtunnel.training.horizons import Horizons, imputed_loss, learning
from windtunnel.training.interruption import noted_signals
from windtunnel.training.loop import Trainer
from windtunnel.training.origin import Origin
from windtunnel.training.profile import SKIPPED, StepProfiler
from windtunnel.training.progress import Report
from windtunnel.training.session import Options, Session
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.transfer import check_mup
from windtunnel.training.workload import Workload, workload_of

FORMAT = 1
_DEFAULT = Execution()


@dataclass(frozen=True)
class RunResult:
    """What `result.json` holds. `horizons` maps "0.5", "1.0", ... to tokens, loss, bits_per_byte, checkpoint, ...
    For a task they have accuracy and what belongs to it in place of bits_per_byte.

    A diverged run has the initial loss in place of each horizon it did not reach, marked `imputed` (protocol 6.5).
    skipped_steps: batches passed over, as (FROM, TO) of the settings say. nonfinite_steps: steps whose loss or gradient
    was not finite. rewinds: where the run went back from a spike, and the sequences passed over each time; their steps
    count nowhere but in seconds: training time with all branches; compile_seconds comes on top. data_seconds: what of
    it the steps waited for their batches. batch_hash: that of the order of data
    in which nothing is passed over.
    """

    horizons: dict[str, dict[str, Any]]
    initial_loss: float | None
    diverged: bool
    skipped_steps: int
    nonfinite_steps: int
    seconds: float
    compile_seconds: float
    batch_hash: str
    data_seconds: float = 0.0
    rewinds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Held-out nats per token at the end of the budget."""
        return float(self.horizons["1.0"]["loss"])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunResult":
        return cls(**record)


def train(
    spec: Model,
    settings: TrainingSettings,
    data: Dataset | Task | Workload,
    folder: str | Path,
    execution: Execution = _DEFAULT,
    resume: bool = False,
    progress: Report | None = None,
    stop: Callable[[], bool] | None = None,
    *,
    save_seconds: float = 60.0,
    keep: int = 2,
    events: bool = True,
    background: bool = True,
    start: str | None = None,
    profile: int | None = None,
    team: Team = ALONE,
    origin: Origin | None = None,
) -> RunResult:
    """Train one model and evaluate it at every horizon; everything is left in `folder`.

    data: token shards, a task, or either as a workload.

    The weights are a pure function of (spec, settings, data): a run killed at any moment and resumed ends with the same
    bits on the same machine with the same execution settings. With `resume`, an empty folder is begun and a finished
    one returns its result. progress: called a few times a second. stop: asked before every step.
    save_seconds, keep: how often a checkpoint is written and how many are kept. events: write TensorBoard's files.
    background: write checkpoints while the training goes on; what is written is the same. start: with `resume`, the
    kept checkpoint ("step-200") to go back to; a finished run is then trained again from there. profile: steps to
    record, from the third on, as `StepProfiler` says.
    team: the processes that train the model together (`windtunnel.distributed.start.team`); all make the same call. The
    data and their order are the same for any team, the weights differ by rounding, and a run may go on with another.
    Several processes write their checkpoints in turn with the training.
    origin: weights to begin with in place of drawn ones; they are part of the run's identity.

    Raises `InputError` before anything is written if the pieces do not fit or the folder is taken, `Interrupted` after
    saving on Ctrl-C, SIGTERM or `stop`, and `WorkError` if the disk fails.
    """
    workload = workload_of(data)
    _check(spec, settings, workload, save_seconds, keep)
    _check_start(Path(folder), resume, start)
    _check_profile(settings, profile)
    check_team(spec, settings, execution, team, workload)
    if origin is not None:
        origin.check(workload, team)
    resolved = execution.resolve()
    sampler = workload.order(settings)
    hash_of_batches = batch_hash(sampler, settings.steps, settings.replace(skips=()).sequences_at)
    counted = _ledger(spec, settings, resolved)
    check_memory(counted.memory, team, resolved.device)
    run = RunFolder(Path(folder), background, team)
    with run.locked():
        identity = _identity(spec, settings, workload, resolved, hash_of_batches)
        identity["memory"] = {**counted.memory._asdict(), "total": counted.memory.total}
        identity["optimiser_operations"] = counted.optimiser
        if origin is not None:
            identity["identity"]["origin"] = origin.hashes
            identity.update(origin.note)
        identity["execution"]["mesh"] = team.mesh.to_json()
        found = run.identify(identity, resume)
        if start is not None:
            run.go_back(start)
        finished = team.lead and found and (run.path / RESULT).is_file()
        done = team.agreed(read_json(run.path / RESULT) if finished else None)
        if done is not None:
            return RunResult.from_json(done)
        run.write("spec.json", spec.to_json)
        team.led(lambda: workload.save(run.path))
        if origin is not None:
            team.led(functools.partial(origin.keep, run.path))
        noted = noted_signals(again=team.size > 1)
        with resolved.applied(), torch.random.fork_rng(_cuda_devices(resolved)), noted as signals:
            model = build(spec, settings.seed, team, resolved.device)
            trainer = Trainer(model, sampler, settings, resolved, team)
            run.places = trainer.parts.places
            if origin is not None and not run.saved:
                trainer.begin_with(origin.read(team, run.places), origin.source.checkpoint)
            horizons = Horizons(workload, settings, run.path)
            options = Options(
                stop=stop,
                report=progress,
                save_seconds=save_seconds,
                keep=keep,
                events=events,
                profiler=_profiler(run, profile, resolved),
                **_costs(counted, resolved, progress, team.size),
            )
            compile_seconds = trainer.warm_up() if resolved.compile else 0.0
            session = Session(trainer, run, horizons, signals, options)
            if run.changed:
                run.note("identity", identity["identity"])
            try:
                session.run()
            finally:
                trainer.data.close()
        result = _result(session, horizons, spec.vocab, compile_seconds, hash_of_batches)
        run.write(RESULT, result.to_json)
        return result


def _check(spec: Model, settings: TrainingSettings, workload: Workload, save_seconds: float, keep: int) -> None:
    workload.check(spec, settings)
    check_mup(spec, settings)
    if keep < 1:
        raise InputError(f"keep is {keep}; at least 1 checkpoint must be kept")
    if not save_seconds >= 0:
        raise InputError(f"save_seconds is {save_seconds}; it must be at least 0")


def _check_start(folder: Path, resume: bool, start: str | None) -> None:
    if start is None:
        return
    if not resume:
        raise InputError(f"start is {start!r}; going back to a checkpoint is resuming: it needs resume=True (--resume)")
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: holds no run, and so no checkpoint {start!r} to go back to")


def _check_profile(settings: TrainingSettings, profile: int | None) -> None:
    most = settings.steps - SKIPPED
    if profile is not None and not 1 <= profile <= most:
        raise InputError(f"profile is {profile}; it must be from 1 to {most} steps: the first {SKIPPED} are skipped")


def _identity(
    spec: Model, settings: TrainingSettings, workload: Workload, resolved: Resolved, hash_of_batches: str
) -> dict[str, Any]:
    """What `run.json` records; a resumed run must agree with the part under "identity"."""
    return {
        "format": FORMAT,
        "identity": {
            "settings": settings.to_json(),
            "spec": {"fingerprint": spec.fingerprint()},
            "data": {"batch_hash": hash_of_batches, **workload.identity},
            "execution": {"dtype": resolved.dtype},
        },
        "execution": resolved.to_json(),
        "data": workload.record,
        "versions": {
            "windtunnel": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }


def _ledger(spec: Model, settings: TrainingSettings, resolved: Resolved) -> Ledger:
    kept = keeps_maps(settings.context, resolved.device.type, resolved.dtype, resolved.compile)
    return ledger(spec, settings.context, kept, settings.optimiser)


def _profiler(run: RunFolder, steps: int | None, resolved: Resolved) -> StepProfiler | None:
    """What records steps, in the process that leads."""
    if steps is None or not run.team.lead:
        return None
    return StepProfiler(run.path, steps, resolved.device.type == "cuda")


def _costs(counted: Ledger, resolved: Resolved, progress: Report | None, devices: int) -> dict[str, Any]:
    """Training FLOPs per token, and the peak to hold them against; recomputation is a further forward pass."""
    again = counted.forward.hardware if resolved.checkpoint else 0.0
    return {
        "model_flops": counted.training.model,
        "hardware_flops": counted.training.hardware + again,
        "peak": None if progress is None else devices * measured_peak(resolved, default_cache()),
    }


def _result(
    session: Session, horizons: Horizons, vocab: int, compile_seconds: float, hash_of_batches: str
) -> RunResult:
    state = session.state
    results = dict(state.horizons)
    for segment in session.plan:
        if segment.horizon is not None and str(segment.horizon) not in results:
            scores = horizons.imputed(imputed_loss(state.watch.initial, vocab))
            session.team.led(functools.partial(horizons.store, segment.horizon, scores))
            results[str(segment.horizon)] = {
                "steps": segment.stop,
                "tokens": session.settings.tokens_before(segment.stop),
                **scores.figures(),
                "seconds": None,
                "checkpoint": None,
                "imputed": True,
                **(learning(state.probes) if segment.horizon == 1.0 else {}),
                **horizons.workload.by_set(scores),
            }
    return RunResult(
        horizons=results,
        initial_loss=state.watch.initial,
        diverged=session.diverged,
        skipped_steps=sum(stop - start for start, stop in session.settings.skips),
        nonfinite_steps=state.watch.nonfinite,
        seconds=session.total_seconds,
        compile_seconds=compile_seconds,
        batch_hash=hash_of_batches,
        data_seconds=session.trainer.data.waited,
        rewinds=state.rewinds,
    )


def _cuda_devices(resolved: Resolved) -> list[int]:
    return [resolved.device.index or 0] if resolved.device.type == "cuda" else []
