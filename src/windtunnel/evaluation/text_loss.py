"""Loss on held-out documents, at the length that a model was made for."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.estimates import Figures, over_documents, spelled
from windtunnel.evaluation.loss import by_set, choose, evaluate_loss
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.report import Part, Table
from windtunnel.runs import Run

_BATCH_TOKENS = 8192


class TextLoss(Evaluation):
    """Nats a token and bits a byte in disjoint windows, as training scores a run.

    context: tokens of a window; None is that of the model. most: held-out tokens to score; None is all of them.
    """

    name: ClassVar[str] = "loss"
    title: ClassVar[str] = "Loss on held-out text"
    lead: ClassVar[str] = (
        "Every document in disjoint windows; nothing crosses from one document to another. Intervals are over "
        "documents, or over seeds where an arm has several."
    )

    context: int | None = None
    most: int | None = None

    def validate(self) -> None:
        for name in ("context", "most"):
            value = getattr(self, name)
            self.require(value is None or value >= 1, f"{name} is {value}; at least 1")

    def check(self, subject: Subject) -> None:
        check_reach(subject, self.name, self._context(subject), "loss:context=COUNT reads shorter windows")

    def tokens(self, subject: Subject) -> int:
        return int(choose(subject.heldout.split, self.most)[1].sum())

    def chance(self, subject: Subject) -> float:
        return float(np.log(subject.spec.vocab))

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        context, text = self._context(subject), subject.heldout
        rows = max(1, _BATCH_TOKENS // context)
        losses = evaluate_loss(run.model, text.split, text.token_bytes, context, rows, self.most)
        parts = by_set(losses, text.split.sets)
        sets = {name: over_documents(part.nats, part.tokens) for name, part in parts.items()}
        return {
            "context": context,
            "tokens": int(losses.tokens.sum()),
            "documents": len(losses.documents),
            "loss": over_documents(losses.nats, losses.tokens),
            "bits_per_byte": over_documents(losses.nats / np.log(2), losses.bytes),
            **({"sets": sets} if len(sets) > 1 else {}),
        }

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        rows = [
            [
                arm.label,
                str(len(arm.seeds)),
                f"{arm.figures['context']:,}",
                spelled(arm.figures["loss"]),
                spelled(arm.figures["bits_per_byte"]),
                f"{arm.figures['documents']:,}",
                f"{arm.figures['tokens']:,}",
            ]
            for arm in arms
        ]
        columns = ("arm", "seeds", "context", "nats a token", "bits a byte", "documents", "tokens")
        tables: list[Part] = [Table(caption=self.title, columns=columns, rows=rows, numeric=range(1, 7))]
        if all("sets" in arm.figures for arm in arms):
            names = list(arms[0].figures["sets"])
            lines = [[arm.label, *(spelled(arm.figures["sets"][name]) for name in names)] for arm in arms]
            tables.append(Table(caption="Nats a token by set", columns=("arm", *names), rows=lines))
        return tables

    def _context(self, subject: Subject) -> int:
        return self.context or subject.context
