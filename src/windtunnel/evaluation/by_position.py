"""Loss by how much text stands before a token, in disjoint and in sliding windows."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.curves import Line, Point, chart, curve
from windtunnel.evaluation.estimates import Figures, over_documents, spelled
from windtunnel.evaluation.loss import choose
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.segments import nats_of, scored
from windtunnel.evaluation.subject import Subject, Text
from windtunnel.evaluation.work import Work
from windtunnel.report import Chart, Part, Table
from windtunnel.root import ModelLayer
from windtunnel.runs import Run

_WINDOWS = 64  # scored at a time


class Window(NamedTuple):
    """Targets first .. last - 1 of a document, of which those from `new` on are scored."""

    document: int
    first: int
    last: int
    new: int


class ByPosition(Evaluation):
    """Bits a byte by the number of tokens before a target, in buckets that double.

    Disjoint windows count from the beginning of the window, sliding ones from that of the document: there every target
    has at least context - stride tokens in sight, or all that are before it. context: tokens of a window; None is that
    of the model. stride: None is a quarter of it. most: held-out tokens to score.
    """

    name: ClassVar[str] = "positions"
    title: ClassVar[str] = "Loss by position"
    lead: ClassVar[str] = (
        "Bits a byte of targets with so many tokens before them: in their window (disjoint), or in their document, of "
        "which a window slides over and sees a part (sliding)."
    )

    context: int | None = None
    stride: int | None = None
    most: int = 65_536

    def validate(self) -> None:
        self.require(self.most >= 1, f"most is {self.most}; at least 1")
        self.require(self.context is None or self.context >= 2, f"context is {self.context}; at least 2")
        self.require(self.stride is None or self.stride >= 1, f"stride is {self.stride}; at least 1")

    def check(self, subject: Subject) -> None:
        context, stride = self._sizes(subject)
        self.require(stride <= context, f"stride is {stride}; at most the context, {context}")
        check_reach(subject, self.name, context, "positions:context=COUNT reads shorter windows")

    def tokens(self, subject: Subject) -> int:
        context, stride = self._sizes(subject)
        return sum(self._read(subject, step) for step in (context, stride))

    def chance(self, subject: Subject) -> float:
        return float(np.log(subject.spec.vocab))

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        context, stride = self._sizes(subject)
        found: Figures = {"context": context, "stride": stride}
        for name, step in (("disjoint", context), ("sliding", stride)):
            read = self._read(subject, step)
            found[name] = work.part(name, read, partial(self._buckets, run.model, subject, step, work))
        return found

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        rows = [
            [
                arm.label,
                name,
                span(bucket),
                spelled(bucket["bits_per_byte"]),
                spelled(bucket["loss"]),
                f"{bucket['tokens']:,}",
                str(len(arm.seeds)),
            ]
            for arm in arms
            for name in ("disjoint", "sliding")
            for bucket in [*arm.figures[name]["buckets"], arm.figures[name]["all"]]
        ]
        columns = ("arm", "windows", "tokens before", "bits a byte", "nats a token", "targets", "seeds")
        table = Table(caption=self.title, columns=columns, rows=rows, numeric=range(3, 7))
        return [_chart(arms), table]

    def _sizes(self, subject: Subject) -> tuple[int, int]:
        context = self.context or subject.context
        return context, self.stride or max(1, context // 4)

    def _windows(self, subject: Subject, step: int) -> list[Window]:
        context, _ = self._sizes(subject)
        counts = choose(subject.heldout.split, self.most)
        return [
            window
            for document, count in zip(*counts, strict=True)
            for window in windows(int(document), int(count), context, step)
        ]

    def _read(self, subject: Subject, step: int) -> int:
        return sum(window.last - window.first for window in self._windows(subject, step))

    def _buckets(self, model: ModelLayer, subject: Subject, step: int, work: Work) -> Figures:
        context, _ = self._sizes(subject)
        made = self._windows(subject, step)
        documents = sorted({window.document for window in made})
        longest = max(window.last for window in made)
        sums = np.zeros((3, len(documents), longest.bit_length()))  # nats, tokens, bytes; by document and bucket
        for batch in (made[first : first + _WINDOWS] for first in range(0, len(made), _WINDOWS)):
            text = subject.heldout
            targets, nats = _scores(model, text, batch, context, work)
            for row, window in enumerate(batch):
                size = window.last - window.first
                before = np.arange(1, size + 1) + (window.first if step < context else 0)
                bucket = np.log2(before).astype(np.int64)
                counted = targets[row, :size] >= 0
                place = documents.index(window.document)
                sizes = np.where(counted, text.token_bytes[targets[row, :size]], 0)
                for total, values in zip(sums, (nats[row, :size], counted, sizes), strict=True):
                    np.add.at(total[place], bucket, values)
        return _figures(sums, context if step == context else longest)


def windows(document: int, count: int, context: int, stride: int) -> Iterator[Window]:
    """Windows of at most `context` targets, `stride` apart, until every target of a document has been scored once."""
    first, done = 0, 0
    while done < count:
        last = min(first + context, count)
        yield Window(document, first, last, done)
        first, done = first + stride, last


def _scores(
    model: ModelLayer, text: Text, batch: Sequence[Window], context: int, work: Work
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Targets [w context], -1 where not scored, and their nats; short windows are filled at their end."""
    inputs = np.zeros((len(batch), context), np.int64)
    targets = np.full((len(batch), context), -1, np.int64)
    for row, window in enumerate(batch):
        start = int(text.split.offsets[window.document]) + window.first
        size, skipped = window.last - window.first, window.new - window.first
        ids = np.asarray(text.split.tokens[start : start + size + 1], np.int64)
        inputs[row, :size] = ids[:-1]
        targets[row, skipped:size] = scored(text, ids[1 + skipped :])
    return targets, nats_of(model, inputs, targets, work)


def _figures(sums: NDArray[np.float64], longest: int) -> Figures:
    nats, tokens, sizes = sums
    buckets = [
        {"from": 2**k, "to": min(2 ** (k + 1) - 1, longest), **_scored(nats[:, k], tokens[:, k], sizes[:, k])}
        for k in range(tokens.shape[1])
        if tokens[:, k].any()
    ]
    whole = {"from": 1, "to": None, **_scored(nats.sum(1), tokens.sum(1), sizes.sum(1))}
    return {"buckets": buckets, "all": whole}


def _scored(nats: NDArray[np.float64], tokens: NDArray[np.float64], sizes: NDArray[np.float64]) -> Figures:
    return {
        "loss": over_documents(nats, tokens),
        "bits_per_byte": over_documents(nats / np.log(2), sizes),
        "tokens": int(tokens.sum()),
    }


def span(bucket: Figures) -> str:
    """A bucket's range in words."""
    if bucket["to"] is None:
        return "all"
    return str(bucket["from"]) if bucket["from"] == bucket["to"] else f"{bucket['from']:,}-{bucket['to']:,}"


def _chart(arms: Sequence[Arm]) -> Chart:
    lines: tuple[tuple[str, Line], ...] = (("disjoint", "solid"), ("sliding", "dashed"))
    series = [
        curve(
            f"{arm.label}, {name}",
            [
                Point((bucket["from"] * bucket["to"]) ** 0.5, bucket["bits_per_byte"], f"{span(bucket)} tokens before")
                for bucket in arm.figures[name]["buckets"]
            ],
            index,
            line,
        )
        for index, arm in enumerate(arms)
        for name, line in lines
    ]
    return chart(
        "positions-chart",
        "Bits a byte by the number of tokens before the target",
        "Lower is better; a model that uses far context goes on falling to the right.",
        ("tokens before the target", "bits a byte"),
        series,
    )
