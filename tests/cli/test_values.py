"""Counts and settings as people type them."""

import pytest

from windtunnel.errors import InputError
from windtunnel.values import parse_count, parse_setting, parse_settings, parse_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("512", 512),
        ("4k", 4_000),
        ("4K", 4_000),
        ("20M", 20_000_000),
        ("1.5B", 1_500_000_000),
        ("0.5k", 500),
        (".5k", 500),
        ("614,400", 614_400),
        ("1_000", 1_000),
        ("1.1M", 1_100_000),  # 1.1 * 10**6 is not whole in floating point
    ],
)
def test_counts(text: str, expected: int) -> None:
    assert parse_count(text) == expected
    assert type(parse_count(text)) is int


@pytest.mark.parametrize("text", ["", "k", "20X", "-4k", "1.5", "0.0001k", "nan", "inf", "1e3", "2 M", "four", "1..5k"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a count such as"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6", 6),
        ("-1", -1),
        ("4k", 4_000),
        ("1.5B", 1_500_000_000),
        ("0.5", 0.5),
        ("10.0", 10.0),
        ("3e-3", 3e-3),
        ("true", True),
        ("False", False),
        ("none", None),
        ("gelu", "gelu"),
        ("k", "k"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_values(text: str, expected: object) -> None:
    assert parse_value(text) == expected
    assert type(parse_value(text)) is type(expected)


def test_a_size_stays_a_name() -> None:
    assert parse_setting("size=7b") == ("size", "7b")
    assert parse_setting("width=7b") == ("width", 7_000_000_000)


def test_settings_are_names_with_values() -> None:
    assert parse_settings(["layers=6", "tied=true", " width = 4k "]) == {"layers": 6, "tied": True, "width": 4_000}


@pytest.mark.parametrize("text", ["layers", "=6", "layers=", "="])
def test_half_a_setting_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="name=value"):
        parse_settings([text])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="layers is given twice: 6 and 7"):
        parse_settings(["layers=6", "layers=7"])
