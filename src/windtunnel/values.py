"""What people type: counts such as 20M, and settings such as `layers=6`."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from windtunnel.errors import InputError

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_COUNT = re.compile(r"([+-]?(?:\d[\d_,]*\.?\d*|\.\d+))([kmb]?)", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "none": None}
_TEXTS = ("size",)  # settings that are names even where they look like a count: llama's 7b


def parse_count(text: str) -> int:
    """A whole number of at least 0: 512, 1_000, 4k, 20M, 1.5B (k, M and B are powers of a thousand)."""
    number = _number(text)
    if number is None or number != number.to_integral_value() or number < 0:
        raise InputError(f"expected a count such as 512, 4k, 20M or 1.5B, got {text!r}")
    return int(number)


def parse_value(text: str) -> Any:
    """A setting's value: true, false, none, a whole number (k, M, B allowed), a number, else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    number = _number(text)
    if number is not None and ("." not in text or text[-1].lower() in _SCALES) and number == int(number):
        return int(number)
    try:
        return float(text)
    except ValueError:
        return text


def parse_setting(text: str) -> tuple[str, Any]:
    """Name and value of `name=value`."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        raise InputError(f"{text!r} is not name=value, for example layers=6")
    return name, value if name in _TEXTS else parse_value(value)


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Many `name=value`; the same name twice is refused."""
    settings: dict[str, Any] = {}
    for text in texts:
        name, value = parse_setting(text)
        if name in settings:
            raise InputError(f"{name} is given twice: {settings[name]!r} and {value!r}")
        settings[name] = value
    return settings


def _number(text: str) -> Decimal | None:
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        return None
    return Decimal(re.sub("[_,]", "", match[1])) * _SCALES[match[2].lower()]
