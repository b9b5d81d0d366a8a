"""The benchmark of experts at a size that takes no time."""

import json

import torch

from windtunnel.bench import experts


def test_it_measures_in_turns_and_prints_ratios() -> None:
    threads = torch.get_num_threads()
    said: list[str] = []
    result = experts.run(rounds=2, threads=1, say=said.append, shape=experts.Shape(16, 8, 12, 4, 2))
    assert torch.get_num_threads() == threads
    assert len(said) == 2
    again = json.loads(json.dumps(result))
    dense, *others = again["contestants"]
    assert dense["ratio"]["value"] == 1.0
    assert all(len(row["seconds"]) == 2 and row["ratio"]["low"] <= row["ratio"]["value"] for row in others)
    table = experts.table(again)
    assert [row[0] for row in table.rows][1:] == ["top-2 of 4 experts", "one of 4 experts, with capacity"]
    assert "16 tokens" in table.caption
