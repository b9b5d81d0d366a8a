"""What a page is made of. A part is anything with `html()`; charts and tables are parts too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from markupsafe import Markup

from windtunnel.report.markup import inline, joined, tag


class Part(Protocol):
    """Anything that can stand in a section."""

    def html(self) -> Markup:
        """The part as markup, its own text escaped."""
        ...


@dataclass(frozen=True, kw_only=True)
class Section:
    """A numbered chapter of the page: `key` is its anchor, `lead` one or two sentences on how to read what follows."""

    key: str
    title: str
    parts: Sequence[Part]
    lead: str = ""
    short: str = ""

    def html(self) -> Markup:
        """The section with its heading."""
        heading = tag("h2", self.title, id=f"{self.key}-heading")
        lead = tag("p", self.lead, class_="lead") if self.lead else ""
        return tag("section", heading, lead, stacked(self.parts), id=self.key, aria_labelledby=f"{self.key}-heading")


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text."""

    paragraphs: Sequence[str]

    def html(self) -> Markup:
        """The paragraphs."""
        return joined([tag("p", inline(text)) for text in self.paragraphs])


@dataclass(frozen=True)
class Raw:
    """Markup that is already safe, such as a rendered template."""

    markup: Markup

    def html(self) -> Markup:
        """The markup itself."""
        return self.markup


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list of short texts."""

    items: Sequence[str | Markup]
    ordered: bool = False

    def html(self) -> Markup:
        """The list."""
        return tag("ol" if self.ordered else "ul", *(tag("li", inline(item)) for item in self.items), class_="items")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with their values; `words` sets names off as the words that the values explain."""

    facts: Sequence[tuple[str, str | Markup]]
    words: bool = False

    def html(self) -> Markup:
        """A definition list."""
        pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in self.facts]
        return tag("dl", *pairs, class_="facts words" if self.words else "facts")


Tone = Literal["good", "fair", "bad", "poor", "even", "mixed", "unknown", "plain"]
_SIGNS = {"good": "▲", "fair": "△", "bad": "▼", "poor": "▽", "even": "=", "mixed": "◆", "unknown": "?", "plain": ""}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number to be read from afar: what it is, the number, and the small print under it."""

    name: str
    value: str
    small: str = ""
    tone: Tone = "unknown"

    def html(self) -> Markup:
        """The number over its small print."""
        value = tag("dd", tag("strong", self.value), tag("small", self.small))
        return tag("div", tag("dt", self.name), value, class_=f"figure {self.tone}")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing's result: its name, a word for the outcome, one sentence, and the figures behind it."""

    title: str
    word: str
    text: str
    tone: Tone = "unknown"
    subtitle: str = ""
    colour: str = "var(--ink)"
    figures: Sequence[Figure] = ()
    remarks: Sequence[str] = ()

    def html(self) -> Markup:
        """The finding as an article."""
        sign = tag("span", _SIGNS[self.tone], class_="sign", aria_hidden="true") if _SIGNS[self.tone] else ""
        badge = tag("span", sign, self.word, class_=f"badge {self.tone}")
        head = tag(
            "h3", tag("span", self.title), tag("span", self.subtitle, class_="quiet") if self.subtitle else "", badge
        )
        numbers = tag("dl", *(figure.html() for figure in self.figures), class_="figures") if self.figures else ""
        remarks = tag("ul", *(tag("li", remark) for remark in self.remarks), class_="remarks") if self.remarks else ""
        body = tag("div", head, tag("p", inline(self.text)), remarks, class_="said")
        return tag("article", body, numbers, class_="finding", style=f"--accent:{self.colour}")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A box that asks for attention."""

    title: str
    parts: Sequence[Part]
    kind: Literal["plain", "warning"] = "plain"

    def html(self) -> Markup:
        """The box."""
        return tag("div", tag("h3", self.title), stacked(self.parts), class_=f"notice {self.kind}")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A titled group inside a section."""

    title: str
    parts: Sequence[Part]
    lead: str = ""

    def html(self) -> Markup:
        """The group with its heading."""
        lead = tag("p", self.lead, class_="lead") if self.lead else ""
        return tag("div", tag("h3", self.title), lead, stacked(self.parts), class_="block")


@dataclass(frozen=True, kw_only=True)
class Details:
    """Parts that stay folded until asked for (and in print are shown)."""

    title: str
    parts: Sequence[Part]

    def html(self) -> Markup:
        """A disclosure."""
        return tag("details", tag("summary", self.title), stacked(self.parts), class_="fold")


@dataclass(frozen=True, kw_only=True)
class Tabs:
    """Alternatives of one thing; without scripts, and in print, all of them are shown one after the other."""

    title: str
    tabs: Sequence[tuple[str, Part]]

    def html(self) -> Markup:
        """The panels; the page's script adds the tab list."""
        if len(self.tabs) == 1:
            return self.tabs[0][1].html()
        panels = [tag("div", part.html(), class_="panel", data_tab=name) for name, part in self.tabs]
        return tag("div", *panels, class_="tabs", data_title=self.title)


def stacked(parts: Sequence[Part]) -> Markup:
    """Parts one under the other."""
    return joined([part.html() for part in parts])
