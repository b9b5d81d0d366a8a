"""Filed results: JSON documents of studies and benchmarks in one folder, sometimes several in a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError


@dataclass(frozen=True)
class Filed:
    """One document. name: the file's. content: the document as JSON values."""

    name: str
    content: Mapping[str, Any]

    @property
    def is_study(self) -> bool:
        """Results of `windtunnel compare`, on text or on a task."""
        return "comparisons" in self.content and "arms" in self.content

    @property
    def fits(self) -> Mapping[str, Any]:
        """What `windtunnel fit --json` wrote, or `scale` and `report` with `--json` beside a ladder's results; else
        nothing."""
        found = self.content if "multipliers" in self.content else self.content.get("fits", {})
        return found if isinstance(found, Mapping) else {}

    @property
    def benchmark(self) -> str:
        """Which benchmark wrote it; empty for anything else."""
        return str(self.content.get("benchmark", ""))


def read_filed(folder: Path) -> list[Filed]:
    """Every document of a folder's `.json` files, in the order of their names."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that holds filed results")
    return [found for path in sorted(folder.glob("*.json")) for found in _documents(path)]


def _documents(path: Path) -> list[Filed]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: damaged or unreadable: {error}") from error
    documents = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in documents):
        raise InputError(f"{path}: damaged: expected a JSON object, or a list of them")
    return [Filed(path.name, each) for each in documents]
