"""What more context is worth: the same targets, read with more and more of what stands before them."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.curves import Point, chart, curve
from windtunnel.evaluation.estimates import Figures, over_documents, spelled
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.segments import Ids, Segments, by_document, check_segments, nats_of, scored, segments
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.report import Chart, Part, Table
from windtunnel.root import ModelLayer
from windtunnel.runs import Run


class ContextGain(Evaluation):
    """G(C, 2C): nats saved where windows of C tokens become windows of 2C, on the same targets.

    Targets are the later half of pieces of `context` tokens (None: the model's). With windows of C tokens each target
    stands in the later half of one, so that it has C/2 to C tokens before it. shortest: where halving ends. pieces: at
    most so many.
    """

    name: ClassVar[str] = "context-gain"
    title: ClassVar[str] = "What more context is worth"
    lead: ClassVar[str] = (
        "The same targets with windows of doubling length: what a doubling saves. It ends where a model's window, or "
        "what its state can hold, ends."
    )

    context: int | None = None
    shortest: int = 8
    pieces: int = 64

    def validate(self) -> None:
        self.require(self.shortest >= 2, f"shortest is {self.shortest}; at least 2")
        self.require(self.pieces >= 1, f"pieces is {self.pieces}; at least 1")

    def check(self, subject: Subject) -> None:
        context = self._ladder(subject)[-1]
        self.require(
            len(self._ladder(subject)) > 1,
            f"windows of {context} tokens cannot be halved down to shortest={self.shortest}; name one of at least "
            "twice as many, divisible by 4",
        )
        check_reach(subject, self.name, context, "context-gain:context=COUNT reads shorter pieces")
        check_segments(subject, context, "context-gain:context=COUNT takes shorter ones")

    def tokens(self, subject: Subject) -> int:
        ladder = self._ladder(subject)
        count = check_segments(subject, ladder[-1], "")
        return len(ladder) * min(count, self.pieces) * ladder[-1]

    def chance(self, subject: Subject) -> float:
        return float(np.log(subject.spec.vocab))

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        ladder = self._ladder(subject)
        found = segments(subject.heldout, ladder[-1], self.pieces)
        targets = scored(subject.heldout, found.targets[:, ladder[-1] // 2 :])
        counts = by_document((targets >= 0).sum(1), found.document)
        cost = len(found.tokens) * ladder[-1]
        sums = []
        for size in ladder:
            kept = work.part(str(size), cost, partial(_sums, run.model, found, targets, size, work))
            sums.append(np.asarray(kept))
        steps = [
            {"from": small, "to": large, "gain": over_documents(before - after, counts)}
            for small, large, before, after in zip(ladder, ladder[1:], sums, sums[1:], strict=False)
        ]
        return {
            "context": ladder[-1],
            "pieces": len(found.tokens),
            "documents": len(counts),
            "targets": int(counts.sum()),
            "losses": [
                {"context": size, "loss": over_documents(nats, counts)} for size, nats in zip(ladder, sums, strict=True)
            ],
            "gains": steps,
            "whole": over_documents(sums[0] - sums[-1], counts),
        }

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        rows = []
        for arm in arms:
            gains = [(f"{step['from']} to {step['to']}", step["gain"]) for step in arm.figures["gains"]]
            first, last = arm.figures["losses"][0], arm.figures["losses"][-1]
            gains.append((f"{first['context']} to {last['context']}", arm.figures["whole"]))
            rows += [
                [
                    arm.label,
                    words,
                    spelled(gain, 4, sign=True),
                    f"{arm.figures['targets']:,}",
                    str(arm.figures["documents"]),
                    str(len(arm.seeds)),
                ]
                for words, gain in gains
            ]
        columns = ("arm", "window", "nats saved a token", "targets", "documents", "seeds")
        return [_chart(arms), Table(caption=self.title, columns=columns, rows=rows, numeric=range(2, 6))]

    def _ladder(self, subject: Subject) -> list[int]:
        """Window sizes, rising."""
        ladder = [self.context or subject.context]
        while ladder[0] % 4 == 0 and ladder[0] // 2 >= self.shortest:
            ladder.insert(0, ladder[0] // 2)
        return ladder


def _sums(model: ModelLayer, found: Segments, targets: Ids, size: int, work: Work) -> list[float]:
    """Nats by document of the targets [n context/2], each with size/2 to size tokens before it."""
    context, half = found.targets.shape[1], size // 2
    starts = range(context // 2 - half, context - size + 1, half)
    inputs = np.concatenate([found.tokens[:, start : start + size] for start in starts])
    wanted = np.full(inputs.shape, -1)
    first = context // 2
    wanted[:, half:] = np.concatenate([targets[:, start + half - first : start + size - first] for start in starts])
    nats = nats_of(model, inputs, wanted, work).sum(1).reshape(len(starts), -1).sum(0)
    return [float(value) for value in by_document(nats, found.document)]


def _chart(arms: Sequence[Arm]) -> Chart:
    series = [
        curve(
            arm.label,
            [
                Point(step["to"], step["gain"], f"{arm.label}, {step['from']} to {step['to']} tokens")
                for step in arm.figures["gains"]
            ],
            index,
        )
        for index, arm in enumerate(arms)
    ]
    return chart(
        "context-gain-chart",
        "Nats a token saved by doubling the window",
        "Above 0 the model uses what the longer window shows; at 0 it does not.",
        ("tokens of the longer window", "nats saved a token"),
        series,
        signed=True,
    )
