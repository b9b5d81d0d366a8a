"""HTML and SVG elements as values; everything that is not markup already is escaped."""

from collections.abc import Iterable

from markupsafe import Markup, escape

Attribute = str | float | int | bool | None


def tag(name: str, *children: str | Markup, **attributes: Attribute) -> Markup:
    """One element. `class_` loses its underscore, inner underscores become hyphens; None and False are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")


def joined(children: Iterable[Markup], between: str = "") -> Markup:
    """Elements one after the other."""
    return Markup(between).join(children)


def inline(content: str | Markup) -> str | Markup:
    """Text whose `backticked` words become code."""
    pieces = content.split("`")
    if isinstance(content, Markup) or len(pieces) < 3 or len(pieces) % 2 == 0:
        return content
    return Markup("").join(tag("code", piece) if k % 2 else escape(piece) for k, piece in enumerate(pieces))


def link(text: str, address: str) -> str | Markup:
    """The text as a link where the address is an https one, else the text."""
    return tag("a", text, href=address, rel="noreferrer") if address.startswith("https://") else text


def path(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a polyline through the points."""
    return "".join(f"{'L' if k else 'M'}{short(x)} {short(y)}" for k, (x, y) in enumerate(points))


def short(value: float) -> str:
    """A coordinate with one decimal, no trailing zero."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _text(value: Attribute) -> str:
    if value is True:
        return ""
    return short(value) if isinstance(value, float) else str(value)
