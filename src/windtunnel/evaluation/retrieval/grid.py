"""What retrieval tasks share: a grid of cells of several items each; cells of one row and index share a text."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from windtunnel.errors import InputError
from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.estimates import Figures, over_documents, over_items
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.retrieval.drawing import DIGITS, Drawing
from windtunnel.evaluation.retrieval.haystack import Haystacks
from windtunnel.evaluation.retrieval.maps import compared, map_parts
from windtunnel.evaluation.retrieval.prompts import Prompt, Question, fitted
from windtunnel.evaluation.retrieval.scoring import Answer, score
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.ledger import step_bytes
from windtunnel.report import Part
from windtunnel.root import ModelLayer
from windtunnel.runs import Run

FLOOR = 0.05  # over chance, which the first arm has to reach
_PART = 4  # indices of a row that are scored, and kept, together


class Row(NamedTuple):
    """Items of one length. key: what tells a row's items from those of the others."""

    label: str
    length: int
    key: str


class Outcome(NamedTuple):
    """What became of one item: nats and tokens of its answers, how many of them were right, where its needle stood.

    found: how many of them stood in what the model wrote; None where it wrote nothing.
    """

    nats: float
    tokens: int
    right: float
    answers: int
    depth: float
    found: float | None = None


class Grid(Evaluation):
    """items: of each cell. seed: of the items."""

    unit: ClassVar[str] = "share of exact answers"
    version: ClassVar[int] = 3
    across: ClassVar[str]
    down: ClassVar[str] = "tokens"
    guess: ClassVar[float] = 10.0 ** (1 - DIGITS) / 9

    items: int = 20
    seed: int = 0

    def validate(self) -> None:
        self.require(self.items >= 1, f"items is {self.items}; at least 1")

    def rows(self, subject: Subject) -> list[Row]:
        """Of the map, from the top."""
        raise NotImplementedError

    def columns(self) -> list[str]:
        """Of the map, from the left."""
        raise NotImplementedError

    def prompts(self, haystacks: Haystacks, row: Row, index: int, budget: int) -> list[Prompt]:
        """One for each column, with haystacks of `budget` tokens; the same for the same (settings, row, index)."""
        raise NotImplementedError

    def drawing(self, row: Row, index: int, part: object = "") -> Drawing:
        """The random choices of an item; part: where several are made for one index."""
        return Drawing(f"{self.name} {row.key} {part}", "test", self.seed, index)

    def check(self, subject: Subject) -> None:
        rows = self.rows(subject)
        check_reach(subject, self.name, max(row.length for row in rows), self.way_out)
        haystacks = Haystacks(subject.heldout)
        for row in rows:
            self.questions(subject, haystacks, row, 0)

    @property
    def way_out(self) -> str:
        """What helps where a length is too much."""
        return f"{self.name}:longest=COUNT asks for shorter ones"

    def tokens(self, subject: Subject) -> int:
        return sum(self.reads(row) for row in self.rows(subject)) * self.items * len(self.columns())

    def reads(self, row: Row) -> int:
        """Tokens of an item that the model reads."""
        return row.length

    def chance(self, subject: Subject) -> float:
        return self.guess

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        rows, haystacks = self.rows(subject), Haystacks(subject.heldout)
        cells = []
        for row in rows:
            found: list[list[Outcome]] = []
            for first in range(0, self.items, _PART):
                indices = range(first, min(first + _PART, self.items))
                size = len(indices) * len(self.columns()) * self.reads(row)

                def compute(row: Row = row, indices: range = indices) -> list[list[list[float | None]]]:
                    groups = [self.questions(subject, haystacks, row, index) for index in indices]
                    return [[list(each) for each in one] for one in self.outcomes(run, groups, work)]

                kept = work.part(f"{row.key} {first}", size, compute)
                found += [[Outcome(*each) for each in one] for one in kept]
            cells.append([_cell([one[column] for one in found]) for column in range(len(self.columns()))])
        return {
            "rows": [row.label for row in rows],
            "columns": self.columns(),
            "cells": cells,
            "by_row": [_together(line) for line in cells],
            "whole": _together([cell for line in cells for cell in line]),
            **_costs(run.model, max(row.length for row in rows)),
        }

    def questions(self, subject: Subject, haystacks: Haystacks, row: Row, index: int) -> list[tuple[Prompt, Question]]:
        """The items of one index, one for each column."""
        return fitted(
            subject.heldout.tokenizer,
            row.length,
            lambda budget: self.prompts(haystacks, row, index, budget),
            self.name,
        )

    def outcomes(self, run: Run, groups: Sequence[list[tuple[Prompt, Question]]], work: Work) -> list[list[Outcome]]:
        """What becomes of some items, [index][column]."""
        answers = score(run.model, [[asked for _, asked in group] for group in groups], work.read)
        return [
            [_outcome(prompt, given) for (prompt, _), given in zip(group, answered, strict=True)]
            for group, answered in zip(groups, answers, strict=True)
        ]

    def derived(self, figures: Figures) -> Figures:
        """floor: whether so little is found that nothing follows from what others find."""
        return {"floor": figures["whole"]["exact"]["value"] < self.guess + FLOOR}

    def compared(self, arms: Sequence[Arm]) -> Figures:
        return compared(arms)

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        return map_parts(self.name, self.title, self.across, self.down, arms)


def lengths_to(name: str, shortest: int, longest: int, count: int) -> list[int]:
    """So many lengths, evenly from the shortest to the longest, which comes last."""
    if shortest > longest:
        raise InputError(
            f"{name}: longest is {longest:,} tokens, and the shortest item has {shortest:,}; {name}:longest=COUNT asks "
            "for longer ones"
        )
    steps = max(count - 1, 1)
    return sorted({longest - round((longest - shortest) * step / steps) for step in range(count)})


def percents(count: int) -> list[float]:
    """So many depths from 0 to 1."""
    return [step / max(count - 1, 1) for step in range(count)]


def _costs(model: ModelLayer, length: int) -> Figures:
    """What answering carries: bytes of the state after a text, and those that the next token reads."""
    state, read = step_bytes(model, length)
    return {"length": length, "state_bytes": state, "read_bytes": read}


def _outcome(prompt: Prompt, answers: Sequence[Answer]) -> Outcome:
    nats, tokens = sum(each.nats for each in answers), sum(each.tokens for each in answers)
    return Outcome(nats, tokens, float(sum(each.exact for each in answers)), len(answers), prompt.depth)


def _cell(outcomes: Sequence[Outcome]) -> Figures:
    """Figures of one cell, whose items are independent: each has a text of its own."""
    right, answers = [each.right for each in outcomes], [each.answers for each in outcomes]
    single = all(count == 1 for count in answers) and all(share in (0, 1) for share in right)
    share = over_items(int(sum(right)), len(outcomes)) if single else _share(right, answers)
    found = [each.found for each in outcomes if each.found is not None]
    return {
        "exact": share,
        **({"found": _share(found, answers)} if found else {}),
        "nats": over_documents([each.nats for each in outcomes], [each.tokens for each in outcomes]),
        "depth": sum(each.depth for each in outcomes) / len(outcomes),
        "items": {
            "right": right,
            **({"found": found} if found else {}),
            "answers": answers,
            "nats": [round(each.nats, 5) for each in outcomes],
            "tokens": [each.tokens for each in outcomes],
        },
    }


def _together(cells: Sequence[Figures]) -> Figures:
    """Figures of several cells. Items of one index may share a text: each index is one cluster."""

    def summed(name: str) -> list[Any]:
        return [sum(values) for values in zip(*(cell["items"][name] for cell in cells), strict=True)]

    wrote = all("found" in cell["items"] for cell in cells)
    return {
        "exact": _share(summed("right"), summed("answers")),
        **({"found": _share(summed("found"), summed("answers"))} if wrote else {}),
        "nats": over_documents(summed("nats"), summed("tokens")),
    }


def _share(right: Sequence[float], answers: Sequence[int]) -> Figures:
    """The share of answers, texts being clusters; where all were right, or none, Wilson's interval over the texts.

    There nothing varies, and an interval from the spread would claim certainty.
    """
    if sum(right) in (0, sum(answers)):
        return over_items(len(right) if sum(right) else 0, len(right))
    return over_documents(right, answers)
