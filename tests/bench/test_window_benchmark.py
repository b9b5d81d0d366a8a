"""The benchmarks of windows and patterns at a size that takes no time."""

import json

import pytest
import torch

from windtunnel.bench import patterns, window
from windtunnel.claims import Filed
from windtunnel.claims.benches import doubled


def test_it_measures_in_turns_and_prints_ratios() -> None:
    threads = torch.get_num_threads()
    said: list[str] = []
    result = window.run(rounds=2, threads=1, say=said.append, shape=window.Shape(64, 8, 1, 4))
    assert torch.get_num_threads() == threads
    assert len(said) == 2
    again = json.loads(json.dumps(result))
    full, *others = again["contestants"]
    assert full["ratio"]["value"] == 1.0
    assert all(len(row["seconds"]) == 2 and row["ratio"]["low"] <= row["ratio"]["value"] for row in others)
    (grown,) = doubled("window", ", by blocks", ", by blocks, half the length")(Filed("window.json", again))
    assert grown.value == pytest.approx(others[1]["ratio"]["value"] / others[2]["ratio"]["value"])
    table = window.table(again)
    assert len(table.rows) == 4
    assert "64 tokens" in table.caption


def test_patterns_are_measured_beside_their_share_of_pairs() -> None:
    result = patterns.run(rounds=2, threads=1, say=lambda words: None, shape=window.Shape(600, 8, 1, 4))
    full, *others = json.loads(json.dumps(result))["contestants"]
    assert full["pairs"] == full["ratio"]["value"] == 1.0
    assert all(0 < row["pairs"] < 0.4 for row in others[:-1])
    assert len(patterns.table(result).rows) == 7
