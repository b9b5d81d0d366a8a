"""Looks: more seeds after a first answer, without the error of asking until it pleases (protocol 7, "No peeking").

Registered with the question: while a verdict is inconclusive the seeds are doubled, and each look decides at its own
share of alpha. The shares add up to 0.05, so that with all of them together an arm that is no better is called so, or
worse, in at most 5 of 100 studies (the union bound).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import read_json, write_json
from windtunnel.comparison.verdict import INCONCLUSIVE
from windtunnel.errors import InputError

SHARES = {1: (0.05,), 2: (0.02, 0.03), 3: (0.01, 0.015, 0.025)}
FILE = "look.json"


def check_looks(looks: int, seeds: int) -> None:
    """Refuse a number of looks that has no shares, and a first look that could not decide."""
    if looks not in SHARES:
        raise InputError(f"looks: {looks} given; 1, 2 or 3")
    if looks > 1 and seeds < 3:
        raise InputError(f"looks: {seeds} seeds decide nothing at a first look; --seeds of at least 3")


def seeds_at(first: int, look: int) -> int:
    """How many seeds an arm has at a look, from those of the first."""
    return first << (look - 1)


def undecided(results: Mapping[str, Any]) -> bool:
    """Whether the intervals leave a verdict open, caps apart; controls are not asked."""
    asked = [one for one in results["comparisons"] if not results["arms"][one["variant"]]["control"]]
    return any(one["uncapped"] == INCONCLUSIVE for one in asked)


def look_of(folder: Path) -> int:
    """At which look a study is."""
    path = folder / FILE
    return int(read_json(path)["look"]) if path.is_file() else 1


def write_look(folder: Path, look: int) -> None:
    """A new look begins."""
    if look != look_of(folder):
        write_json(folder / FILE, {"look": look})
