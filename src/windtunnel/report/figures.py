"""Numbers as people read them: one spelling per kind of quantity, the same in pages, terminals and Markdown.

Every function takes None (or a number that is not finite) for "not known" and answers `MISSING`.
"""

import math
from typing import Any

MISSING = "–"
MINUS = "−"

_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number_or_none(value: Any) -> float | None:
    """The value as a finite float, or None for anything else (None, NaN, text, booleans)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def fixed(value: float | None, digits: int = 3) -> str:
    """`4.013`; a real minus sign."""
    if number_or_none(value) is None or value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.013` or `−0.051`: a difference always shows its sign."""
    text = fixed(value, digits)
    return text if text == MISSING or text.startswith(MINUS) else f"+{text}"


def ratio(value: float | None) -> str:
    """`1.31x`: two decimals near one, three significant digits elsewhere."""
    known = number_or_none(value)
    if known is None:
        return MISSING
    return f"{known:.2f}x" if 0.1 <= abs(known) < 10 else f"{known:.3g}x"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`[−0.071, −0.031]`; an unknown end is shown as such."""
    if number_or_none(low) is None and number_or_none(high) is None:
        return MISSING
    return f"[{fixed(low, digits)}, {fixed(high, digits)}]"


def saving(speedup: float | None) -> str:
    """The percent saved, 1 - 1/S, that always stands beside a ratio: `24 % saved`, or `11 % more` where S < 1."""
    known = number_or_none(speedup)
    if known is None or known <= 0:
        return MISSING
    percent = 100 * (1 - 1 / known)
    if abs(percent) < 0.5:
        return "0\u00a0% saved"
    return f"{percent:.0f}\u00a0% saved" if percent > 0 else f"{-percent:.0f}\u00a0% more"


def gap(fraction: float | None) -> str:
    """A relative difference of parameters: `+0.12 %`."""
    known = number_or_none(fraction)
    return MISSING if known is None else f"{signed(100 * known, 2)}\u00a0%"


def counted(value: float | None) -> str:
    """`147.5k`, `614k`, `12.1M`: three significant digits and a letter, whole numbers below a thousand."""
    known = number_or_none(value)
    if known is None:
        return MISSING
    for unit, letter in _UNITS:
        if abs(known) >= 0.9995 * unit:
            return _short(known / unit) + letter
    return _short(known)


def exact(value: float | None) -> str:
    """`147,456`: every digit of a count, in groups of three."""
    known = number_or_none(value)
    if known is None:
        return MISSING
    return (f"{known:,.0f}" if known == round(known) else f"{known:,.3f}").replace("-", MINUS)


def byte_count(value: float | None) -> str:
    """`512 B`, `96 KiB`, `1.5 MiB`."""
    known = number_or_none(value)
    if known is None:
        return MISSING
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(known) >= 1024**power:
            return f"{_short(known / 1024**power)} {unit}"
    return f"{_short(known)} B"


def duration(seconds: float | None) -> str:
    """`450 ms`, `42 s`, `3.5 min`, `2.1 h`."""
    known = number_or_none(seconds)
    if known is None:
        return MISSING
    for unit, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if abs(known) >= unit:
            return f"{_short(known / unit)} {name}"
    return f"{_short(1000 * known)} ms"


def rate(value: float | None) -> str:
    """A learning rate: `0.0042`, `3e-05`."""
    known = number_or_none(value)
    return MISSING if known is None else f"{known:.2g}"


def plain(value: Any) -> str:
    """Any value of a spec or a setting, short: floats to six digits, None as `none`, lists joined."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    return str(value)


def _short(value: float) -> str:
    """Three significant digits without a useless fraction."""
    text = f"{value:.3g}"
    if "e" in text:
        text = f"{value:.0f}"
    return text.replace("-", MINUS)
