"""Where attention goes while a needle is asked for (Ye et al. 2024, arXiv 2410.05258, section 3.3 and table 3)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from windtunnel.errors import InputError
from windtunnel.evaluation.attention_shares import FIRST, attention_shares
from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.estimates import Figures, over_documents, spelled
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.retrieval.grid import Row
from windtunnel.evaluation.retrieval.haystack import Haystacks
from windtunnel.evaluation.retrieval.needle import Needle
from windtunnel.evaluation.retrieval.prompts import Prompt, Question, fitted, keys_of
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.mixers import AttendingLayer
from windtunnel.report import Axis, Chart, Part, Series, Table, colour, marker
from windtunnel.root import ModelLayer
from windtunnel.runs import Run

NEEDLE, NOISE = "needle", "noise"
SPANS = (NEEDLE, NOISE, FIRST)


class AttentionOnNeedle(Evaluation):
    """Shares of attention on the needle, on the rest of the text, and on the first token, by the needle's depth.

    Queries are the tokens that must give the answer, items those of `needle`. A share is a map's sum over a span by its
    sum over all keys, mean over queries, heads and layers; of differential attention the map is that of the
    difference, whose entries may be negative. length: of a text, None is the run's context; items: of each depth.
    """

    name: ClassVar[str] = "attention"
    title: ClassVar[str] = "Attention on the needle"
    lead: ClassVar[str] = (
        "While a model gives the number in a needle: the part of its attention that lies on the needle, on the rest of "
        "the text (noise), and on the first token."
    )
    unit: ClassVar[str] = "share of attention"

    depths: int = 5
    items: int = 10
    length: int | None = None
    seed: int = 0

    def validate(self) -> None:
        for name in ("depths", "items", "length"):
            value = getattr(self, name)
            self.require(value is None or value >= 1, f"{name} is {value}; at least 1")

    def check(self, subject: Subject) -> None:
        check_reach(subject, self.name, self._row(subject).length, "attention:length=COUNT asks for a shorter text")
        with torch.device("meta"):
            model = subject.spec.build()
        if not any(isinstance(layer, AttendingLayer) for layer in model.modules()):
            raise InputError(f"{subject.folder}: none of its mixers has attention maps; leave the run or attention out")
        self.questions(subject, Haystacks(subject.heldout), 0)

    def tokens(self, subject: Subject) -> int:
        return self._row(subject).length * self.items * self.depths

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        haystacks = Haystacks(subject.heldout)
        row = self._row(subject)
        found: list[Any] = []  # items depths spans layers (share, magnitude)
        for index in range(self.items):

            def compute(index: int = index) -> list[Any]:
                asked = self.questions(subject, haystacks, index)
                return [shares_of(run.model, subject, *each) for each in asked]

            found.append(work.part(f"{row.key} {index}", row.length * self.depths, compute))
        values = np.array(found, np.float64)
        ones = np.ones(self.items)
        return {
            "columns": self._needle().columns(),
            "share": {
                span: [over_documents(values[:, depth, place, :, 0].mean(1), ones) for depth in range(self.depths)]
                for place, span in enumerate(SPANS)
            },
            "mean": {
                span: over_documents(values[:, :, place, :, 0].mean((1, 2)), ones) for place, span in enumerate(SPANS)
            },
            "magnitude": {
                span: over_documents(values[:, :, place, :, 1].mean((1, 2)), ones) for place, span in enumerate(SPANS)
            },
            "layers": {
                span: [float(each) for each in values[:, :, place, :, 0].mean((0, 1))]
                for place, span in enumerate(SPANS)
            },
        }

    def questions(self, subject: Subject, haystacks: Haystacks, index: int) -> list[tuple[Prompt, Question]]:
        """The items of one index, one for each depth."""
        needle, row = self._needle(), self._row(subject)
        return fitted(
            haystacks.tokenizer, row.length, lambda budget: needle.prompts(haystacks, row, index, budget), self.name
        )

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        rows = [
            [
                arm.label,
                *(spelled(arm.figures["mean"][span]) for span in SPANS),
                *(spelled(arm.figures["magnitude"][span]) for span in (NEEDLE, NOISE)),
                str(len(arm.seeds)),
            ]
            for arm in arms
        ]
        columns = ("arm", *SPANS, "|needle|", "|noise|", "seeds")
        note = (
            "Mean over depths, heads, layers and items. Bars: of the absolute weights, in which noise of both signs "
            "does not cancel. Published at 3B: 0.27 to 0.40 on the answer and 0.01 to 0.02 on noise for differential "
            "attention, 0.03 to 0.09 and 0.49 to 0.54 for plain."
        )
        table = Table(caption=self.title, columns=columns, rows=rows, numeric=range(1, len(columns)), note=note)
        return [table, _chart(arms)]

    def _needle(self) -> Needle:
        return Needle(depths=self.depths, seed=self.seed)

    def _row(self, subject: Subject) -> Row:
        length = self.length or subject.context
        return Row(f"{length:,}", length, str(length))


def shares_of(model: ModelLayer, subject: Subject, prompt: Prompt, asked: Question) -> list[Any]:
    """[span][layer][share, magnitude] of one item, means over heads."""
    device = model.embedding.weight.device
    text = keys_of(subject.heldout.tokenizer, prompt, (0, prompt.begins))
    spans = {NEEDLE: asked.needle, NOISE: text & ~asked.needle}
    found = attention_shares(
        model,
        torch.from_numpy(asked.tokens)[None].to(device),
        torch.from_numpy(asked.answer >= 0)[None].to(device),
        {name: torch.from_numpy(keys)[None].to(device) for name, keys in spans.items()},
    )
    layers = list(dict.fromkeys(row.layer for row in found.rows))
    return [
        [
            [
                float(np.mean([(r.share, r.magnitude)[k] for r in found.rows if (r.span, r.layer) == (span, layer)]))
                for k in (0, 1)
            ]
            for layer in layers
        ]
        for span in SPANS
    ]


def _chart(arms: Sequence[Arm]) -> Chart:
    series = []
    for index, arm in enumerate(arms):
        for span, line in ((NEEDLE, "solid"), (NOISE, "dashed")):
            shares = arm.figures["share"][span]
            series.append(
                Series(
                    name=f"{arm.label}: {span}",
                    x=[float(depth) for depth in arm.figures["columns"]],
                    y=[share["value"] for share in shares],
                    low=[share["low"] for share in shares],
                    high=[share["high"] for share in shares],
                    colour=colour(index),
                    marker=marker(index),
                    line=line,  # type: ignore[arg-type]
                    hollow=span == NOISE,
                    tips=[f"{arm.label}, {span}\n{spelled(share)}" for share in shares],
                )
            )
    return Chart(
        key="attention-chart",
        title="Attention by the needle's depth",
        description="Solid: on the needle. Dashed: on the rest of the text.",
        x=Axis(title="depth of the needle, %"),
        y=Axis(title="share of attention"),
        series=series,
    )
