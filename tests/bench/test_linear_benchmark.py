"""The benchmark of linear attention at a size that takes no time."""

import json

import pytest
import torch

from windtunnel.bench import linear
from windtunnel.claims import Filed
from windtunnel.claims.benches import doubled


def test_it_measures_in_turns_and_prints_ratios() -> None:
    threads = torch.get_num_threads()
    said: list[str] = []
    result = linear.run(rounds=2, threads=1, say=said.append, shape=linear.Shape(64, 1, 4))
    assert torch.get_num_threads() == threads
    assert len(said) == 2
    again = json.loads(json.dumps(result))
    full, *others = again["contestants"]
    assert full["ratio"]["value"] == 1.0
    assert all(len(row["seconds"]) == 2 and row["ratio"]["low"] <= row["ratio"]["value"] for row in others)
    (grown,) = doubled("linear", "means of the past (softmax, exp)", "means of the past, half the length")(
        Filed("linear.json", again)
    )
    assert grown.value == pytest.approx(others[1]["ratio"]["value"] / others[2]["ratio"]["value"])
    table = linear.table(again)
    assert len(table.rows) == 4
    assert "64 tokens" in table.caption
