"""Numbers as people read them."""

_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short(value: float) -> str:
    """Three significant digits with k, M, B or T: 147k, 6.74B."""
    for scale, letter in _STEPS:
        if abs(value) >= 0.9995 * scale:
            return f"{_three(value / scale)}{letter}"
    return f"{value:.0f}"


def grouped(value: float) -> str:
    """A whole number with commas: 614,400."""
    return f"{value:,.0f}"


def bytes_short(value: float) -> str:
    """Bytes in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three(value)} {unit}"
        value /= 1024
    return f"{_three(value)} TiB"


def _three(value: float) -> str:
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}"
