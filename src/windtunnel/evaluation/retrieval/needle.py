"""Passkey, needle in a haystack, and several needles at once."""

from typing import ClassVar

from windtunnel.evaluation.retrieval.drawing import Drawing
from windtunnel.evaluation.retrieval.grid import Grid, Row, lengths_to, percents
from windtunnel.evaluation.retrieval.haystack import Haystacks, hide
from windtunnel.evaluation.retrieval.noise import noise_tokens
from windtunnel.evaluation.retrieval.prompts import Prompt, ask, encoded
from windtunnel.evaluation.subject import Subject

_BEGIN = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there."
)


class Lengths(Grid):
    """Rows of several lengths. longest: of the rows, None is the run's context.

    shortest: None is longest / lengths, or what the question and a little text take.
    """

    longest: int | None = None
    shortest: int | None = None
    lengths: int = 10

    def validate(self) -> None:
        super().validate()
        for name in ("longest", "shortest", "lengths"):
            value = getattr(self, name)
            self.require(value is None or value >= 1, f"{name} is {value}; at least 1")

    def rows(self, subject: Subject) -> list[Row]:
        longest = self.longest or subject.context
        shortest = self.shortest or max(longest // self.lengths, self._least(subject))
        sizes = lengths_to(self.name, shortest, longest, self.lengths)
        return [Row(f"{size:,}", size, str(size)) for size in sizes]

    def _least(self, subject: Subject) -> int:
        """Tokens of an item with hardly any text, and half as many again."""
        haystacks = Haystacks(subject.heldout)
        prompts = self.prompts(haystacks, Row("", 1, ""), 0, 1)
        return max(3 * len(encoded(haystacks.tokenizer, prompt.text)) // 2 for prompt in prompts)


class Depths(Lengths):
    """Rows of several lengths, columns of several depths."""

    across: ClassVar[str] = "depth of the needle, %"

    depths: int = 10

    def validate(self) -> None:
        super().validate()
        self.require(self.depths >= 1, f"depths is {self.depths}; at least 1")

    def columns(self) -> list[str]:
        return [f"{100 * depth:.0f}" for depth in percents(self.depths)]


class Needle(Depths):
    """One sentence with a number in a text of held-out documents; what comes after the question is the number.

    An item's text is the same at all depths, the name and the number are others; a depth is the share of the text
    before the sentence, which stands at the sentence boundary nearest it.
    """

    name: ClassVar[str] = "needle"
    title: ClassVar[str] = "A needle in a haystack"
    lead: ClassVar[str] = (
        "A sentence with a seven-digit number is put into a text, and the number is asked for at the end."
    )

    def prompts(self, haystacks: Haystacks, row: Row, index: int, budget: int) -> list[Prompt]:
        text = haystacks.take(self.drawing(row, index).share(), budget)
        return [self._prompt(text, row, index, depth) for depth in percents(self.depths)]

    def _prompt(self, text: str, row: Row, index: int, depth: float) -> Prompt:
        return several(text, self.drawing(row, index, depth), 1, 1, depth)


class Passkey(Depths):
    """A number of five digits among five sentences that are repeated (Mohtashami, Jaggi 2023, section 4.2).

    The only thing in the text that is not repeated is what is asked for: a check that anything is found at all.
    """

    name: ClassVar[str] = "passkey"
    title: ClassVar[str] = "Passkey"
    lead: ClassVar[str] = (
        "A five-digit key among sentences that are repeated: the easiest form, a sanity check and no more."
    )
    guess: ClassVar[float] = 1 / 90_000

    def prompts(self, haystacks: Haystacks, row: Row, index: int, budget: int) -> list[Prompt]:
        text = noise_tokens(haystacks, budget)
        return [passkey(text, self.drawing(row, index, depth), depth) for depth in percents(self.depths)]


class MultiNeedle(Grid):
    """Several sentences, one number each, of which some are asked for (Ye et al. 2024, arXiv 2410.05258, section 3.3).

    needles, asked: rows of the map, pairwise. The first needle asked for stands at the column's depth, the others
    anywhere. Answers are scored one by one, with the right ones before them. length: of the text, None is the run's
    context.
    """

    name: ClassVar[str] = "multi-needle"
    title: ClassVar[str] = "Several needles"
    lead: ClassVar[str] = (
        "Several sentences with a number each are put into a text, and some of the numbers are asked for: N/R is N "
        "sentences of which R are asked for."
    )
    across: ClassVar[str] = "depth of the first needle asked for, %"
    down: ClassVar[str] = "needles / asked"

    needles: tuple[int, ...] = (1, 2, 4, 6)
    asked: tuple[int, ...] = (1, 2, 2, 2)
    depths: int = 5
    length: int | None = None

    def validate(self) -> None:
        super().validate()
        self.require(
            len(self.needles) == len(self.asked) > 0,
            f"needles has {len(self.needles)} entries and asked {len(self.asked)}; they belong together",
        )
        for count, wanted in zip(self.needles, self.asked, strict=True):
            self.require(1 <= wanted <= count, f"asked is {wanted} of needles {count}; from 1 to all of them")
        self.require(self.depths >= 1, f"depths is {self.depths}; at least 1")
        self.require(self.length is None or self.length >= 1, f"length is {self.length}; at least 1")

    @property
    def way_out(self) -> str:
        return f"{self.name}:length=COUNT asks for a shorter one"

    def rows(self, subject: Subject) -> list[Row]:
        length = self.length or subject.context
        pairs = zip(self.needles, self.asked, strict=True)
        return [Row(f"{count}/{wanted}", length, f"{length} {count} {wanted}") for count, wanted in pairs]

    def columns(self) -> list[str]:
        return [f"{100 * depth:.0f}" for depth in percents(self.depths)]

    def prompts(self, haystacks: Haystacks, row: Row, index: int, budget: int) -> list[Prompt]:
        count, wanted = (int(part) for part in row.label.split("/"))
        text = haystacks.take(self.drawing(row, index).share(), budget)
        return [several(text, self.drawing(row, index, depth), count, wanted, depth) for depth in percents(self.depths)]


def several(text: str, drawing: Drawing, count: int, wanted: int, depth: float) -> Prompt:
    """So many needles in a text, so many of them asked for; the first of these at a depth, the others anywhere."""
    facts = [(drawing.name(), drawing.number()) for _ in range(count)]
    places = [depth, *(drawing.share() for _ in range(count - 1))]
    hidden = hide(text, [sentence(*fact) for fact in facts], places)
    order = [k for k in drawing.order(count) if k < wanted]
    pieces = [
        ((asking([facts[j][0] for j in order]) if place == 0 else ".") + due(facts[k][0]), facts[k][1])
        for place, k in enumerate(order)
    ]
    return ask(hidden, pieces, order)._replace(depth=hidden.depths[0])


def passkey(text: str, drawing: Drawing, depth: float) -> Prompt:
    """A pass key of five digits in a text, with what is said before and after it."""
    number = drawing.number(5)
    hidden = hide(text, [f"The pass key is {number}. Remember it. {number} is the pass key."], [depth])
    start = len(_BEGIN) + 1
    spans = tuple((first + start, last + start) for first, last in hidden.spans)
    moved = hidden._replace(text=f"{_BEGIN} {hidden.text}", spans=spans)
    return ask(moved, [("What is the pass key? The pass key is", number)])


def sentence(name: str, number: str) -> str:
    """The needle."""
    return f"One of the special magic numbers for {name} is: {number}."


def asking(names: list[str]) -> str:
    """The question."""
    return f"What are the special magic numbers for {' and '.join(names)} mentioned in the text?"


def due(name: str) -> str:
    """What stands before an answer."""
    return f" The special magic number for {name} is:"
