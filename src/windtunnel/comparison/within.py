"""What happens within a run, from the training rows of its `metrics.jsonl`."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.statistics import mean_interval

_POINTS = 48
_END = 0.05  # of a run's tokens: its last batches


def curve(paths: list[Path]) -> dict[str, list[float]]:
    """Training loss within the longest runs, seed mean and 95 % band, averaged over bins that grow with the tokens."""
    rows = [list(_rows(path, 1.0)) for path in paths]
    steps = min(len(one) for one in rows)
    if steps == 0:
        return {}
    losses = np.array([[row["loss"] for row in one[:steps]] for one in rows])  # seeds steps
    tokens = np.array([row["tokens"] for row in rows[0][:steps]], dtype=np.float64)
    edges = np.unique(np.round(np.geomspace(1, steps, _POINTS)).astype(int))
    bins = [slice(low, high) for low, high in zip([0, *edges[:-1]], edges, strict=True) if high > low]
    middle = [float(np.exp(np.log(tokens[one]).mean())) for one in bins]
    bands = [mean_interval(losses[:, one].mean(axis=1)) for one in bins]
    finite = [(x, band) for x, band in zip(middle, bands, strict=True) if math.isfinite(band.value)]
    return {
        "tokens": [x for x, _ in finite],
        "loss": [band.value for _, band in finite],
        "low": [band.low if math.isfinite(band.low) else band.value for _, band in finite],
        "high": [band.high if math.isfinite(band.high) else band.value for _, band in finite],
    }


def end_of_training(path: Path, horizon: float) -> float | None:
    """Mean training loss over the last 5 % of the tokens before a horizon, in nats a token; None where none is logged.

    horizon: as the run's rows name it, in parts of its longest one. Rows of the trunk count where it has no branch.
    """
    rows = list(_rows(path, horizon))
    rows = [row for row in rows if row["horizon"] is not None] or rows
    last = max((row["tokens"] for row in rows), default=0)
    losses = [row["loss"] for row in rows if row["tokens"] > (1 - _END) * last]
    return float(np.mean(losses)) if losses else None


def _rows(path: Path, horizon: float) -> Iterator[dict[str, Any]]:
    """Training rows of the line that leads to a horizon; what the trunk did after its branch left is among them."""
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row.get("horizon") in (None, horizon) and row.get("loss") is not None and "lr" in row:
            yield row
