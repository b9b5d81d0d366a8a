"""Tasks after RULER (Hsieh et al. 2024, arXiv 2404.06654): derived from it, not comparable with its figures.

Other than there, keys are made-up names, haystacks are the run's own text, every item draws anew where its needles
stand, answers are asked for in an order that the question names, and each is scored with the right ones before it.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch

from windtunnel.errors import InputError
from windtunnel.evaluation.retrieval.drawing import DIGITS, HELD_OUT, NAMES, Drawing
from windtunnel.evaluation.retrieval.grid import Outcome, Row
from windtunnel.evaluation.retrieval.haystack import Haystacks, Hidden, hide
from windtunnel.evaluation.retrieval.needle import Lengths, asking, due, sentence
from windtunnel.evaluation.retrieval.noise import noise_tokens
from windtunnel.evaluation.retrieval.prompts import Prompt, Question, ask, encoded, fitted
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.inference.batch import limit_of
from windtunnel.inference.generate import generate
from windtunnel.runs import Run

SEVERAL = 4  # values of a key, keys that are asked for, hops of a chain
COMMON, OFTEN, SELDOM = 10, 30, 3  # words, and how often each of them and each other word comes
FREQUENT = 3  # words asked for after the most frequent one, which is noise
_LEAST_WORDS = 60


def single_noise(drawing: Drawing, haystacks: Haystacks, budget: int) -> Prompt:
    """One needle in sentences that are repeated."""
    name, number = drawing.name(), drawing.number()
    hidden = hide(noise_tokens(haystacks, budget), [sentence(name, number)], [drawing.share()])
    return ask(hidden, [(asking([name]) + due(name), number)])


def multikey(drawing: Drawing, haystacks: Haystacks, budget: int) -> Prompt:
    """One needle among nothing but others."""
    name, number = drawing.name(), drawing.number()
    size = len(encoded(haystacks.tokenizer, sentence(name, number) + " "))
    others = [sentence(drawing.name(), drawing.number()) for _ in range(max(1, budget // size))]
    hidden = hide(" ".join(others), [sentence(name, number)], [drawing.share()])
    return ask(hidden, [(asking([name]) + due(name), number)])


def multivalue(drawing: Drawing, haystacks: Haystacks, budget: int) -> Prompt:
    """Four numbers of one key, in the order of the text."""
    name, places = drawing.name(), sorted(drawing.share() for _ in range(SEVERAL))
    numbers = [drawing.number() for _ in places]
    hidden = hide(haystacks.take(drawing.share(), budget), [sentence(name, each) for each in numbers], places)
    asked = f"What are all the special magic numbers for {name}, in the order of the text? They are:"
    return ask(hidden, _listed(asked, numbers), range(SEVERAL))


def multiquery(drawing: Drawing, haystacks: Haystacks, budget: int) -> Prompt:
    """Four keys, all asked for."""
    facts = [(drawing.name(), drawing.number()) for _ in range(SEVERAL)]
    text = haystacks.take(drawing.share(), budget)
    hidden = hide(text, [sentence(*fact) for fact in facts], [drawing.share() for _ in facts])
    order = drawing.order(SEVERAL)
    names = [facts[k][0] for k in order]
    pieces = [((asking(names) if k == order[0] else ".") + due(facts[k][0]), facts[k][1]) for k in order]
    return ask(hidden, pieces, order)


def variables(drawing: Drawing, haystacks: Haystacks, budget: int) -> Prompt:
    """A chain of assignments: every variable that has the value, in the order of the text."""
    names, number = [drawing.name().upper() for _ in range(SEVERAL + 1)], drawing.number(5)
    values = [number, *(f"VAR {name}" for name in names)]
    lines = [f"VAR {name} = {value}." for name, value in zip(names, values, strict=False)]
    places = sorted(drawing.share() for _ in names)
    hidden = hide(noise_tokens(haystacks, budget), lines, places)
    asked = f"Which variables have the value {number}, in the order of the text? They are:"
    return ask(hidden, _listed(asked, names), range(len(names)))


def common_words(drawing: Drawing, haystacks: Haystacks, budget: int) -> Prompt:
    """A list of words, ten of which come ten times as often as the others; half of a short list is those ten."""
    count = _words(haystacks, "12. Balomi\n" * 10, budget)
    often = min(OFTEN, count // (2 * COMMON))
    seldom = max(1, often * SELDOM // OFTEN)
    common = sorted(drawing.name() for _ in range(COMMON))
    others = [drawing.name() for _ in range((count - COMMON * often) // seldom)]
    words = [*common * often, *others * seldom]
    text = "".join(f"{place + 1}. {words[k]}\n" for place, k in enumerate(drawing.order(len(words))))
    asked = f"What are the {COMMON} most common words of the list, in alphabetical order? They are:"
    return ask(Hidden(text, (), ()), _listed(asked, common), ())


def frequent_words(drawing: Drawing, haystacks: Haystacks, budget: int) -> Prompt:
    """Words whose counts fall with the square of their rank; the first is noise, the next three are asked for."""
    count = _words(haystacks, ".. " * 6 + "Balomi " * 4, budget)
    counts = [int(count * 6 / (3.141592653589793 * rank) ** 2) for rank in range(1, count)]
    counts = [each for each in counts if each]
    names = ["..", *(drawing.name() for _ in counts[1:])]
    words = [name for name, each in zip(names, counts, strict=True) for _ in range(each)]
    text = " ".join(words[k] for k in drawing.order(len(words)))
    asked = f"Dots are nothing. What are the {FREQUENT} most frequent words, the most frequent first? They are:"
    return ask(Hidden(text, (), ()), _listed(asked, names[1 : FREQUENT + 1]), ())


_NUMBER, _WORD = 10.0 ** (1 - DIGITS) / 9, HELD_OUT / NAMES
KINDS: dict[str, tuple[Callable[[Drawing, Haystacks, int], Prompt], float]] = {
    "single-noise": (single_noise, _NUMBER),
    "multikey": (multikey, _NUMBER),
    "multivalue": (multivalue, _NUMBER),
    "multiquery": (multiquery, _NUMBER),
    "variables": (variables, _WORD),
    "common-words": (common_words, _WORD),
    "frequent-words": (frequent_words, _WORD),
}


class Ruler(Lengths):
    """Seven tasks after RULER, by length. kinds: which of them.

    generate: the model also answers in its own words, greedily; beside exact answers stands the share of an item's
    answers that are found in what it wrote, upper and lower case alike (RULER's string_match_all).
    """

    name: ClassVar[str] = "ruler"
    title: ClassVar[str] = "Tasks derived from RULER"
    lead: ClassVar[str] = (
        "Needles among noise, among other needles, with several values or questions; a chain of variables; common and "
        "frequent words. Derived from RULER, and not comparable with its published figures."
    )
    across: ClassVar[str] = "task"

    lengths: int = 4
    kinds: tuple[str, ...] = tuple(KINDS)
    generate: bool = False

    def validate(self) -> None:
        super().validate()
        unknown = next((kind for kind in self.kinds if kind not in KINDS), None)
        self.require(unknown is None, f"kinds holds {unknown!r}; known: {', '.join(KINDS)}")
        self.require(len(self.kinds) > 0, "kinds is empty; at least one")

    def columns(self) -> list[str]:
        return list(self.kinds)

    def chance(self, subject: Subject) -> float:
        return sum(KINDS[kind][1] for kind in self.kinds) / len(self.kinds)

    def check(self, subject: Subject) -> None:
        super().check(subject)
        with torch.device("meta"):
            limit = limit_of(subject.spec.build()) if self.generate else None
        longest = max(row.length for row in self.rows(subject))
        if limit is not None and longest > limit:
            raise InputError(
                f"{subject.folder}: writes within its context of {limit:,}, and {self.name} asks for {longest:,} "
                f"tokens; {self.way_out}, or leave generate out"
            )

    def reads(self, row: Row) -> int:
        return 2 * row.length if self.generate else row.length

    def outcomes(self, run: Run, groups: Sequence[list[tuple[Prompt, Question]]], work: Work) -> list[list[Outcome]]:
        known = super().outcomes(run, groups, work)
        if not self.generate:
            return known
        found = iter(found_in_words(run, [each for group in groups for each in group]))
        work.read(sum(len(asked.tokens) for group in groups for _, asked in group))
        return [[each._replace(found=next(found)) for each in one] for one in known]

    def prompts(self, haystacks: Haystacks, row: Row, index: int, budget: int) -> list[Prompt]:
        return [self._prompt(kind, haystacks, row, index, budget) for kind in self.kinds]

    def questions(self, subject: Subject, haystacks: Haystacks, row: Row, index: int) -> list[tuple[Prompt, Question]]:
        """One of each kind, fitted by itself: what stands around the text takes more in some than in others."""
        found = []
        for kind in self.kinds:

            def make(budget: int, kind: str = kind) -> list[Prompt]:
                return [self._prompt(kind, haystacks, row, index, budget)]

            found += fitted(haystacks.tokenizer, row.length, make, f"{self.name} {kind}")
        return found

    def _prompt(self, kind: str, haystacks: Haystacks, row: Row, index: int, budget: int) -> Prompt:
        return KINDS[kind][0](self.drawing(row, index, kind), haystacks, budget)


def found_in_words(run: Run, items: Sequence[tuple[Prompt, Question]]) -> list[float]:
    """How many of each item's answers stand in what the model writes after its question, greedily.

    It may write half as many tokens again as the right answers take, with what stands between them.
    """
    assert run.tokenizer is not None
    given = [[int(token) for token in asked.tokens[: asked.asked]] for _, asked in items]
    room = max(len(asked.tokens) - asked.asked + 1 for _, asked in items)
    written = generate(run, given, tokens=room + room // 2, temperature=0.0)
    texts = [run.tokenizer.decode(np.array(ids, np.int64)).lower() for ids in written]
    return [
        float(sum(reference.lower() in text for reference in prompt.references))
        for (prompt, _), text in zip(items, texts, strict=True)
    ]


def _listed(asked: str, answers: Sequence[str]) -> list[tuple[str, str]]:
    """The question with the first answer, then the others after commas."""
    return [(asked if place == 0 else ",", answer) for place, answer in enumerate(answers)]


def _words(haystacks: Haystacks, ten: str, budget: int) -> int:
    """How many words make so many tokens, by what ten of them take, or the fewest that say anything."""
    size = len(encoded(haystacks.tokenizer, ten)) / 10
    return max(_LEAST_WORDS, int(budget / size))
