"""Jobs of a study or a ladder in its folder: what is finished is read, the rest goes to a pool, failures are noted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.comparison.jobs import finished
from windtunnel.comparison.pool import Job, Outcome, Pool

Notify = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """How far a phase is: what was trained of it in this session and what is to be, in the jobs' units of weight."""

    phase: str
    tokens: int
    total: int
    done: int
    jobs: int


class Work:
    """Runs jobs in a folder and keeps what failed: whose job it was, which, and why."""

    def __init__(self, folder: Path, pool: Pool[Any], notify: Notify | None) -> None:
        self.folder, self.pool, self.notify = folder, pool, notify
        self.failures: list[dict[str, str]] = []

    def run(self, phase: str, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Outcomes of finished jobs from their folders, then of the others from the pool."""
        left = []
        for job in jobs:
            result = finished(job)
            if result is not None:
                yield Outcome(job, result)
            else:
                left.append(job)
        if left:
            yield from self.on(phase, left)

    def on(self, phase: str, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Outcomes from the pool as they come; the listener hears how far it is."""
        done, total = 0, sum(job.weight for job in jobs)

        def tick(tokens: int) -> None:
            if self.notify is not None:
                self.notify(Progress(phase, tokens, total, done, len(jobs)))

        for outcome in self.pool.run(jobs, tick):
            done += 1
            yield outcome
        tick(total)

    def fail(self, label: str, outcome: Outcome) -> None:
        """Note a job that came to nothing."""
        name = outcome.job.name
        job = str(Path(name).relative_to(self.folder)) if Path(name).is_relative_to(self.folder) else name
        self.failures.append({"arm": label, "job": job, "error": outcome.error, "details": outcome.details})
