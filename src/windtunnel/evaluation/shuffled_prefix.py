"""How far back a model looks: what it loses where all that is far away comes from another document."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from windtunnel.errors import InputError
from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.curves import Point, chart, curve
from windtunnel.evaluation.estimates import Figures, over_documents, spelled
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.segments import Ids, Segments, by_document, check_segments, nats_of, scored, segments
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.report import Chart, Guide, Part, Table, figures
from windtunnel.root import ModelLayer
from windtunnel.runs import Run

NEGLIGIBLE = 0.02  # nats a token


class ShuffledPrefix(Evaluation):
    """Nats lost where everything further back than k tokens is replaced by as much of another document.

    Targets are the last `targets` tokens of pieces of `context` tokens (None: the model's), so that each has k to
    k + targets - 1 of its own tokens left; k doubles from 8. pieces: at most so many.
    """

    name: ClassVar[str] = "shuffled-prefix"
    title: ClassVar[str] = "How far back a model looks"
    lead: ClassVar[str] = (
        "Everything further back than k tokens is replaced by another document's text. What that costs at k is what "
        "the model had drawn from beyond; where it costs nothing, the effective memory ends."
    )

    context: int | None = None
    targets: int = 8
    pieces: int = 128

    def validate(self) -> None:
        for name in ("targets", "pieces"):
            self.require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; at least 1")

    def check(self, subject: Subject) -> None:
        context = self._context(subject)
        self.require(
            bool(self._distances(subject)),
            f"of {context} tokens, {self.targets} of them targets, none is further back than 8; name a longer context",
        )
        check_reach(subject, self.name, context, "shuffled-prefix:context=COUNT reads shorter pieces")
        check_segments(subject, context, "shuffled-prefix:context=COUNT takes shorter ones")
        if len(set(self._pieces(subject).document)) < 2:
            raise InputError(
                f"{subject.heldout.name}: only one document has {context:,} tokens, and another is needed for its "
                "prefix; shuffled-prefix:context=COUNT takes shorter ones"
            )

    def tokens(self, subject: Subject) -> int:
        return (len(self._distances(subject)) + 1) * self._pieces(subject).tokens[:, 1:].size

    def chance(self, subject: Subject) -> float:
        return float(np.log(subject.spec.vocab))

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        found = self._pieces(subject)
        targets = np.full(found.targets.shape, -1)
        targets[:, -self.targets :] = scored(subject.heldout, found.targets[:, -self.targets :])
        counts = by_document((targets >= 0).sum(1), found.document)
        others = found.tokens[_others(found.document)]
        sums = {}
        for distance in [*self._distances(subject), None]:
            inputs = self._inputs(found, others, distance)
            compute = partial(_sums, run.model, found, inputs, targets, work)
            sums[distance] = np.asarray(work.part(str(distance), inputs.size, compute))
        return {
            "context": found.targets.shape[1],
            "pieces": len(found.tokens),
            "documents": len(counts),
            "loss": over_documents(sums[None], counts),
            "lost": [
                {"kept": distance, "nats": over_documents(sums[distance] - sums[None], counts)}
                for distance in self._distances(subject)
            ],
        }

    def derived(self, figures: Figures) -> Figures:
        """memory: the least number of tokens without which nothing over 0.02 nats is lost; None if there is none."""
        enough = [lost["kept"] for lost in figures["lost"] if lost["nats"]["value"] <= NEGLIGIBLE]
        return {"memory": min(enough, default=None)}

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        rows = [
            [
                arm.label,
                str(lost["kept"]),
                spelled(lost["nats"], 4, sign=True),
                figures.plain(arm.figures["memory"]),
                str(arm.figures["pieces"]),
                str(arm.figures["documents"]),
                str(len(arm.seeds)),
            ]
            for arm in arms
            for lost in arm.figures["lost"]
        ]
        columns = ("arm", "tokens kept", "nats lost a token", "memory", "pieces", "documents", "seeds")
        note = f"memory: the fewest tokens kept at which no more than {NEGLIGIBLE} nats are lost."
        table = Table(caption=self.title, columns=columns, rows=rows, numeric=range(1, 7), note=note)
        return [_chart(arms), table]

    def _context(self, subject: Subject) -> int:
        return self.context or subject.context

    def _distances(self, subject: Subject) -> list[int]:
        most = self._context(subject) - self.targets
        return [2**power for power in range(3, max(most, 1).bit_length()) if 2**power < most]

    def _pieces(self, subject: Subject) -> Segments:
        return segments(subject.heldout, self._context(subject), self.pieces)

    def _inputs(self, found: Segments, others: Ids, distance: int | None) -> Ids:
        """Inputs [n context] with all but the last of each replaced, up to `distance` tokens before the targets."""
        inputs = found.tokens[:, :-1].copy()
        if distance is not None:
            replaced = inputs.shape[1] - self.targets - distance + 1
            inputs[:, :replaced] = others[:, :replaced]
        return inputs


def _others(document: Ids) -> Ids:
    """For each row the next one, in a circle, that is of another document."""
    count = len(document)
    return np.array(
        [
            next((row + step) % count for step in range(1, count) if document[(row + step) % count] != document[row])
            for row in range(count)
        ]
    )


def _sums(model: ModelLayer, found: Segments, inputs: Ids, targets: Ids, work: Work) -> list[float]:
    nats = nats_of(model, inputs, targets, work).sum(1)
    return [float(value) for value in by_document(nats, found.document)]


def _chart(arms: Sequence[Arm]) -> Chart:
    series = [
        curve(
            arm.label,
            [Point(lost["kept"], lost["nats"], f"{arm.label}, {lost['kept']} kept") for lost in arm.figures["lost"]],
            index,
        )
        for index, arm in enumerate(arms)
    ]
    return chart(
        "shuffled-prefix-chart",
        "Nats lost where all but the last tokens are another document's",
        "A curve that comes down to 0 early belongs to a model that looks no further back.",
        ("tokens kept before the target", "nats lost a token"),
        series,
        [Guide(axis="y", value=NEGLIGIBLE, label=f"{NEGLIGIBLE} nats")],
        signed=True,
    )
