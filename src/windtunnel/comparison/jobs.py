"""What a study's workers do: train a run, measure throughput. Payloads and results are plain data."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import windtunnel.parts  # noqa: F401 - defines the kinds that files may hold
from windtunnel.checkpoint import read_json
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.pool import Job
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.root import Model
from windtunnel.runs import differences
from windtunnel.spec import from_json
from windtunnel.training.folder import RESULT
from windtunnel.training.progress import Progress
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Workload, open_workload

# Until a worker of a killed study lets go of a folder, or a network's file system forgets a machine that is lost.
_WAITS = (0.5, 1.0, 5.0, 30.0, 60.0)


def training_job(
    folder: Path,
    arm: Arm,
    settings: TrainingSettings,
    workload: Workload,
    execution: Execution,
    token_weight: float = 1.0,
) -> Job:
    """The job that trains one run in a folder of its own; run again, it goes on from where it stopped.

    token_weight: what a token counts, where runs differ in how long theirs take.
    """
    payload = {
        "token_weight": token_weight,
        "folder": str(folder.absolute()),
        "spec": arm.spec.to_json(),
        "settings": settings.to_json(),
        "workload": workload.address(),
        "data": workload.fingerprint,
        "execution": execution.to_json(),
        "packages": arm.packages,
    }
    return Job(
        str(folder), "windtunnel.comparison.jobs:train_run", payload, round(total_tokens(settings) * token_weight)
    )


def finished(job: Job) -> dict[str, Any] | None:
    """The result that a job's folder holds; None if there is none yet.

    Raises `InputError` if it is that of a run with another spec, settings or data, brought from another study.
    """
    folder, payload = Path(job.payload["folder"]), job.payload
    if not (folder / RESULT).is_file():
        return None
    stored, spec = read_json(folder / "run.json"), from_json(payload["spec"], payload["packages"])
    asked = {"settings": payload["settings"], "spec": {"fingerprint": spec.fingerprint()}}
    found = differences(stored["identity"], asked)
    theirs = stored["data"]["fingerprint"]
    if theirs != payload["data"]:
        found.append(f"data is {theirs!r} there and {payload['data']!r} here")
    if found:
        raise InputError(
            f"{folder}: holds the result of another study: {'; '.join(found[:6])}. Take the folder away, and the run "
            "is trained"
        )
    return read_json(folder / RESULT)


def total_tokens(settings: TrainingSettings) -> int:
    """Tokens of a run with all its cooldown branches."""
    counted = settings.tokens_before
    branches = sum(
        counted(settings.horizon_steps(horizon)) - counted(settings.cooldown_start(horizon))
        for horizon in settings.horizons[:-1]
    )
    return counted(settings.steps) + branches


def train_run(payload: dict[str, Any], report: Callable[[int], None]) -> dict[str, Any]:
    """Train (or finish) one run; returns its result."""
    spec, settings, execution = (
        from_json(payload[name], payload["packages"]) for name in ("spec", "settings", "execution")
    )
    assert isinstance(spec, Model)
    assert isinstance(settings, TrainingSettings)
    assert isinstance(execution, Execution)
    workload = open_workload(payload["workload"])

    def progressed(progress: Progress) -> None:
        report(round(progress.tokens * payload["token_weight"]))

    for wait in (*_WAITS, None):
        try:
            result = train(
                spec,
                settings,
                workload,
                Path(payload["folder"]),
                execution,
                resume=True,
                progress=progressed,
                events=False,
            )
            return result.to_json()
        except InputError as error:
            if wait is None or "in use" not in str(error):
                raise
            time.sleep(wait)
    raise AssertionError("unreachable")
