"""Runs from studies' results and from tables, refused where they cannot stand in one fit."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import read_json
from windtunnel.comparison.scaling.runs import Runs, ladder
from windtunnel.errors import InputError

_NEEDED = ("arm", "parameters", "tokens", "flops", "loss")
_SAME = {
    "data": ("data", "id"),
    "tokenizer": ("data", "tokenizer_fingerprint"),
    "context": ("settings", "context"),
    "evaluation tokens": ("settings", "evaluation_tokens"),
    "optimiser": ("settings", "optimiser"),
    "precision": ("versions", "dtype"),
}
_RESULTS = "results.json"


@dataclass(frozen=True)
class Source:
    """Every arm's runs, which arm is the baseline, where they are from, and what to know of them."""

    arms: dict[str, Runs]
    baseline: str
    origins: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    arm: str
    parameters: float
    tokens: float
    flops: float
    loss: float
    body: float


def read_sources(paths: Sequence[Path], baseline: str | None = None) -> Source:
    """Folders of studies and ladders, or their results.json; or tables (.csv), which do not say on what they trained.

    The columns of a table: arm, parameters, tokens, flops, loss, and body if known. `baseline` names an arm; without it
    the studies' own, or the first of a table.
    """
    tables = [path for path in paths if path.suffix.lower() == ".csv"]
    if not paths:
        raise InputError("SOURCE is missing: name folders of studies, results.json files, or tables (.csv)")
    if tables and len(tables) < len(paths):
        raise InputError(
            f"{tables[0]}: a table does not say on which data it was trained: give tables or studies alone"
        )
    rows, first, notes = _tables(tables) if tables else _studies(paths)
    arms = {name: _runs(name, [row for row in rows if row.arm == name]) for name in dict.fromkeys(r.arm for r in rows)}
    chosen = baseline or first
    if chosen not in arms:
        raise InputError(f"baseline: {chosen!r} is not among the arms: {', '.join(arms)}")
    return Source(arms, chosen, tuple(str(path) for path in paths), tuple(notes))


def _runs(name: str, rows: list[_Row]) -> Runs:
    return ladder(
        name,
        parameters=[row.parameters for row in rows],
        tokens=[row.tokens for row in rows],
        compute=[row.flops for row in rows],
        losses=[row.loss for row in rows],
        body=[row.body for row in rows],
    )


def _tables(paths: Iterable[Path]) -> tuple[list[_Row], str, list[str]]:
    rows = [row for path in paths for row in _table(path)]
    return rows, rows[0].arm, []


def _table(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}; a table needs {', '.join(_NEEDED)}")
            rows = [_row(path, reader.line_num, each) for each in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}") from error
    if not rows:
        raise InputError(f"{path}: the table has no rows")
    return rows


def _row(path: Path, line: int, cells: dict[str, Any]) -> _Row:
    values = {}
    for name in (*_NEEDED[1:], "body"):
        text = cells.get(name) or (cells["parameters"] if name == "body" else "")
        try:
            values[name] = float(text)
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {line}: {name} must be a number, got {text!r}") from None
    arm = (cells["arm"] or "").strip()
    if not arm:
        raise InputError(f"{path}, line {line}: arm is empty")
    return _Row(arm, **values)


def _studies(paths: Sequence[Path]) -> tuple[list[_Row], str, list[str]]:
    found = {path: _results(path) for path in paths}
    _require_alike(found)
    first = next(iter(found.values()))
    rows, notes = [], []
    for path, results in found.items():
        for name, arm in results["arms"].items():
            if arm.get("control") or not (arm.get("horizons") or arm.get("runs")):
                continue
            rows += _rungs(path, name, arm) if "runs" in arm else _horizons(path, name, arm)
            if arm.get("lr_at_edge") or arm.get("untuned"):
                notes.append(
                    f"{name} in {path}: its learning rate is not tuned, or the best is at the edge of its grid"
                )
            if arm.get("diverged"):
                notes.append(f"{name} in {path}: {arm['diverged']} diverged; such a run counts with its initial loss")
    if not rows:
        raise InputError(f"{paths[0]}: no arm has a finished run")
    return rows, str(first["baseline"]), notes


def _results(path: Path) -> dict[str, Any]:
    file = path / _RESULTS if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no {_RESULTS} is there; name a finished study's folder, its {_RESULTS} or a .csv")
    found = read_json(file)
    if not isinstance(found.get("arms"), dict) or "baseline" not in found:
        raise InputError(f"{file}: these are not the results of a study")
    return found


def _require_alike(found: dict[Path, dict[str, Any]]) -> None:
    """Losses are of one data, tokenizer, context, precision and optimiser, or they are no one curve."""
    (first, results), *others = found.items()
    for path, other in others:
        for name, (group, key) in _SAME.items():
            ours, theirs = results.get(group, {}).get(key), other.get(group, {}).get(key)
            if ours != theirs:
                raise InputError(f"{path}: {name} {theirs}, but {ours} in {first}: leave out one of the two")


def _horizons(path: Path, name: str, arm: dict[str, Any]) -> list[_Row]:
    """One row a seed of each horizon: every horizon has fully decayed."""
    try:
        counts, each = arm["params"], arm["flops_per_token"]
        return [
            _Row(name, counts["n_active"], one["tokens"], each * one["tokens"], loss, arm["n_body"])
            for one in arm["horizons"].values()
            for loss in one["loss"]["seeds"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: the results of {name} lack {error}; make them again by `windtunnel report`"
        ) from error


def _rungs(path: Path, name: str, arm: dict[str, Any]) -> list[_Row]:
    """One row a run of a ladder."""
    try:
        found = []
        for run in arm["runs"]:
            size = arm["sizes"][run["size"] - 1]
            counts = size["params"]["n_active"], run["tokens"], run["flops"]
            found.append(_Row(name, *counts, run["loss"], size["n_body"]))
        return found
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}: the results of {name} lack {error}; make them again by `windtunnel report`"
        ) from error
