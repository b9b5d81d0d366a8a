"""Marker shapes and text in SVG."""

import math

from markupsafe import Markup

from windtunnel.report.markup import Attribute, path, short, tag

_PLUS = ((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4))
_STAR = ((1.35 * (1 - 0.56 * (k % 2)), k * math.pi / 5) for k in range(10))
_POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    "down": ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
    "hexagon": tuple((1.1 * math.cos(k * math.pi / 3), 1.1 * math.sin(k * math.pi / 3)) for k in range(6)),
    "plus": (*_PLUS, *((-x, -y) for x, y in _PLUS)),
    "star": tuple((r * math.sin(angle), -r * math.cos(angle)) for r, angle in _STAR),
}


def shape(marker: str, x: float, y: float, size: float, colour: str, *, hollow: bool = False, tip: str = "") -> Markup:
    """A marker centred at (x, y). `cross` is for what failed, `ring` marks the chosen one among others."""
    style = f"fill:{'var(--paper)' if hollow else colour};stroke:{colour}"
    common: dict[str, Attribute] = {"class_": "mark", "style": style, "data_tip": tip or None}
    if tip:
        common |= {"data_x": short(x), "data_y": short(y)}
    if marker == "cross":
        arms = [path(((x - s, y - size), (x + s, y + size))) for s in (size, -size)]
        return tag("path", d="".join(arms), stroke_width=2, **common)
    if marker == "ring":
        common["style"] = f"fill:none;stroke:{colour}"
        return tag("circle", cx=x, cy=y, r=size * 1.9, stroke_width=1.6, **common)
    if marker in _POLYGONS:
        return tag("path", d=path((x + size * a, y + size * b) for a, b in _POLYGONS[marker]) + "Z", **common)
    return tag("circle", cx=x, cy=y, r=size, **common)


def words(
    content: str, x: float, y: float, *, anchor: str = "start", kind: str = "", style: str | None = None
) -> Markup:
    """A line of text with its baseline at y."""
    return tag(
        "text", content, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=kind or None, style=style
    )


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str, style: str | None = None) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind, style=style)


def text_width(content: str, size: float) -> float:
    """About how wide a line of text is; system fonts differ, so this errs on the wide side."""
    return 0.58 * size * len(content)
