"""Loss on what the context has already shown: associative recall in natural text (Arora et al. 2023, Zoology)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.by_position import Window, windows
from windtunnel.evaluation.estimates import Figures, over_documents, spelled
from windtunnel.evaluation.loss import choose
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.segments import Ids, nats_of, scored
from windtunnel.evaluation.subject import Subject, Text
from windtunnel.evaluation.work import Work
from windtunnel.report import Part, Table
from windtunnel.report.figures import fixed
from windtunnel.root import ModelLayer
from windtunnel.runs import Run

_COUNTED_TOKENS = 1 << 22  # of the training text, from its beginning
_WINDOWS = 64
_BYTE_ORDER, _TOKEN_ORDER = 6, 2


class Hits(Evaluation):
    """Nats of targets that end an n-gram which the window has shown before (hits), and of all others (rest).

    N-grams that are frequent in the training text are no hits, for a model knows them without looking. order: n; None
    is 2, and 6 for bytes. percentile: of the counts of different n-grams, over which one is frequent; limit: a count in
    its place (1,250 in the paper). context: tokens of a window; None is the model's. most: held-out tokens to score.
    """

    name: ClassVar[str] = "hits"
    title: ClassVar[str] = "Recall in natural text"
    lead: ClassVar[str] = (
        "A hit is a token that ends a rare n-gram which its window has shown before: it can be copied. Where one "
        "architecture is worse than another on hits alone, it is recall that it lacks."
    )

    order: int | None = None
    percentile: float = 99.0
    limit: int | None = None
    context: int | None = None
    most: int = 65_536

    def validate(self) -> None:
        self.require(self.order is None or self.order >= 2, f"order is {self.order}; at least 2")
        self.require(0 < self.percentile <= 100, f"percentile is {self.percentile}; above 0 and at most 100")
        self.require(self.most >= 1, f"most is {self.most}; at least 1")

    def check(self, subject: Subject) -> None:
        context, order = self._context(subject), self._order(subject)
        self.require(context > order, f"windows of {context} tokens show no {order}-gram twice; name a longer context")
        check_reach(subject, self.name, context, "hits:context=COUNT reads shorter windows")

    def tokens(self, subject: Subject) -> int:
        return sum(window.last - window.first for window in self._windows(subject))

    def chance(self, subject: Subject) -> float:
        return float(np.log(subject.spec.vocab))

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        text, order = subject.heldout, self._order(subject)
        counted = text.split.tokens if text.training is None else text.training
        frequent, limit = frequent_grams(counted[:_COUNTED_TOKENS], order, run.spec.vocab, self.percentile, self.limit)
        made = self._windows(subject)
        documents = sorted({window.document for window in made})
        sums = np.zeros((2, 2, len(documents)))  # rest and hits; nats and tokens
        for batch in (made[first : first + _WINDOWS] for first in range(0, len(made), _WINDOWS)):
            for window, nats, counts, hit in _scores(
                run.model, text, batch, self._context(subject), order, frequent, work
            ):
                place = documents.index(window.document)
                for kind in (0, 1):
                    chosen = counts & (hit == kind)
                    sums[kind, :, place] += nats[chosen].sum(), chosen.sum()
        (rest, rests), (hits, found) = sums
        return {
            "order": order,
            "limit": limit,
            "counted": "text" if text.training is None else "training text",
            "hits": {"loss": over_documents(hits, found), "tokens": int(found.sum())},
            "rest": {"loss": over_documents(rest, rests), "tokens": int(rests.sum())},
            "loss": over_documents(hits + rest, found + rests),
            "share": float(found.sum() / (found + rests).sum()),
        }

    def compared(self, arms: Sequence[Arm]) -> Figures:
        """gap: by arm, the share of its difference from the first one in loss that hits account for."""
        return {"gap": {arm.label: gap(arms[0].figures, arm.figures) for arm in arms[1:]}}

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        gaps = self.compared(arms)["gap"]
        total = {arm.label: sum(arm.figures[kind]["tokens"] for kind in ("hits", "rest")) for arm in arms}
        rows = [
            [
                arm.label,
                spelled(arm.figures["hits"]["loss"]),
                spelled(arm.figures["rest"]["loss"]),
                spelled(arm.figures["loss"]),
                fixed(gaps.get(arm.label), 2),
                f"{100 * arm.figures['hits']['tokens'] / total[arm.label]:.1f}",
                str(len(arm.seeds)),
            ]
            for arm in arms
        ]
        first = arms[0].figures
        columns = ("arm", "nats on hits", "on the rest", "on all", "of the gap", "% hits", "seeds")
        note = (
            f"{first['order']}-grams that occur at most {first['limit']:,} times in the {first['counted']}. The gap is "
            f"that in loss to {arms[0].label}; beside it the share of it that hits account for."
        )
        return [Table(caption=self.title, columns=columns, rows=rows, numeric=range(1, 7), note=note)]

    def _context(self, subject: Subject) -> int:
        return self.context or subject.context

    def _order(self, subject: Subject) -> int:
        bytewise = subject.heldout.tokenizer.kind == "bytes"
        return self.order or (_BYTE_ORDER if bytewise else _TOKEN_ORDER)

    def _windows(self, subject: Subject) -> list[Window]:
        context = self._context(subject)
        counts = choose(subject.heldout.split, self.most)
        return [
            window
            for document, count in zip(*counts, strict=True)
            for window in windows(int(document), int(count), context, context)
        ]


def grams(ids: NDArray[Any], order: int, vocab: int) -> NDArray[np.uint64]:
    """A number for each n-gram of ids [t], by where it ends; [t - n + 1]. Long ones wrap around at 2^64."""
    wide = np.asarray(ids, np.uint64)
    count = max(len(wide) - order + 1, 0)
    found = np.zeros(count, np.uint64)
    for place in range(order):
        found = found * np.uint64(vocab) + wide[place : place + count]
    return found


def frequent_grams(
    ids: NDArray[Any], order: int, vocab: int, percentile: float, limit: int | None
) -> tuple[NDArray[np.uint64], int]:
    """The n-grams that occur more often than `limit`, sorted, and the limit: a percentile of their counts if None."""
    known, counts = np.unique(grams(ids, order, vocab), return_counts=True)
    if limit is None:
        limit = int(np.percentile(counts, percentile)) if len(counts) else 0
    return known[counts > limit], limit


def seen_before(ids: Ids, order: int, vocab: int, frequent: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """For each of ids [t] but the first: whether it ends a rare n-gram that has ended before; [t - 1]."""
    made = grams(ids, order, vocab)
    _, first = np.unique(made, return_index=True)
    hit = np.ones(len(made), dtype=bool)
    hit[first] = False
    hit &= ~np.isin(made, frequent)
    return np.concatenate([np.zeros(len(ids) - 1 - len(made), dtype=bool), hit])


def gap(baseline: Figures, variant: Figures) -> float | None:
    """The hits' share of the difference in loss; None where there is no difference, or no hit."""
    whole = variant["loss"]["value"] - baseline["loss"]["value"]
    values = [figures["hits"]["loss"]["value"] for figures in (variant, baseline)]
    if None in values or whole == 0:
        return None
    return float((values[0] - values[1]) * baseline["share"] / whole)


def _scores(
    model: ModelLayer,
    text: Text,
    batch: Sequence[Window],
    context: int,
    order: int,
    frequent: NDArray[np.uint64],
    work: Work,
) -> list[tuple[Window, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]]:
    """For each window: nats of its targets, which of them count, and which are hits."""
    inputs = np.zeros((len(batch), context), np.int64)
    targets = np.full((len(batch), context), -1, np.int64)
    hits = []
    for row, window in enumerate(batch):
        start = int(text.split.offsets[window.document]) + window.first
        size = window.last - window.first
        ids = np.asarray(text.split.tokens[start : start + size + 1], np.int64)
        inputs[row, :size], targets[row, :size] = ids[:-1], scored(text, ids[1:])
        hits.append(seen_before(ids, order, model.spec.vocab, frequent))
    nats = nats_of(model, inputs, targets, work)
    sizes = [window.last - window.first for window in batch]
    return [
        (window, nats[row, :size], targets[row, :size] >= 0, hits[row])
        for row, (window, size) in enumerate(zip(batch, sizes, strict=True))
    ]
