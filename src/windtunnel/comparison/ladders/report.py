"""The page of a ladder: its fits, and what stands behind them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from windtunnel.comparison.scaling import fit_arms, read_sources
from windtunnel.comparison.scaling.page import render
from windtunnel.report import write_page


def fitted(results: Mapping[str, Any], folder: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The fits of a ladder's runs, as `windtunnel fit FOLDER` makes them."""
    return fit_arms(read_sources([folder], str(results["baseline"])), say=say)


def write_report(results: Mapping[str, Any], document: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html`."""
    return write_page(folder / "report.html", render(document))
