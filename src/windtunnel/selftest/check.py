"""What a self-test is, and how it ended."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

Say = Callable[[str], None]


@dataclass(frozen=True)
class Lab:
    """Where a check may write, and who hears what it is at. What it leaves in its folder it may go on from."""

    folder: Path
    say: Say = lambda words: None


@dataclass(frozen=True)
class Outcome:
    """passed, the figures that decided it in words, and as JSON values."""

    passed: bool
    shown: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One self-test. number: the protocol's (section 15). title: what it shows. long: hours or minutes, not seconds."""

    name: str
    number: int
    title: str
    run: Callable[[Lab], Outcome]
    long: bool = False


def largest(left: Tensor, right: Tensor) -> float:
    """The largest difference of two tensors' entries."""
    return float((left - right).abs().max())


def worst(differences: dict[str, float], allowed: float, unit: str = "") -> Outcome:
    """Passes where no difference exceeds what is allowed; shows the largest with its name."""
    name = max(differences, key=lambda each: math.inf if math.isnan(differences[each]) else differences[each])
    shown = (
        f"{len(differences)} compared, largest difference {differences[name]:.1e}{unit} ({name}), allowed {allowed:.0e}"
    )
    return Outcome(differences[name] <= allowed, shown, {"differences": differences, "allowed": allowed})
