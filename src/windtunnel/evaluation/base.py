"""What an evaluation is: a question with its settings, which can be asked of any run.

An evaluation is a spec, so it has JSON and a fingerprint, and refuses impossible settings when it is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from windtunnel.evaluation.estimates import Figures
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.report import Part
from windtunnel.runs import Run
from windtunnel.spec import Spec


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds alone. figures: those of all of them, put together."""

    label: str
    seeds: tuple[int | None, ...]
    figures: Figures


class Evaluation(Spec):
    """One question.

    name: as it is typed. title, lead: of its section on the page. unit: what `chance` is measured in. version: counts
    up when other figures come out of the same settings.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    lead: ClassVar[str]
    unit: ClassVar[str] = "nats a token"
    version: ClassVar[int] = 1

    def check(self, subject: Subject) -> None:
        """Refuse, with an `InputError` that says the way out, what this run cannot be asked. Reads no weights."""

    def tokens(self, subject: Subject) -> int:
        """How many tokens the model will read: the sum over the parts of `measure`."""
        raise NotImplementedError

    def chance(self, subject: Subject) -> float | None:
        """The figure of a model that guesses evenly, in `unit`."""
        return None

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        """The figures, as plain JSON; numbers that have an interval as estimates (`windtunnel.evaluation.estimates`).

        Long work is cut into `work.part`s, and calls `work.read` as it goes on.
        """
        raise NotImplementedError

    def derived(self, figures: Figures) -> Figures:
        """What follows from the figures of all seeds together."""
        return {}

    def compared(self, arms: Sequence[Arm]) -> Figures:
        """What is said of arms beside each other."""
        return {}

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        """The section's tables and charts. Tables are printed in terminals too."""
        raise NotImplementedError


def record(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as it is kept beside its figures."""
    return {"task": evaluation.name, "title": evaluation.title, "settings": evaluation.to_json()}
