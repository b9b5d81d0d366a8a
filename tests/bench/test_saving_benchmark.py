"""The benchmark of checkpoints at a size that takes no time."""

import json

from windtunnel.bench import saving
from windtunnel.bench.shape import Shape

SMALL = Shape(layers=1, width=16, heads=2, hidden=24, vocab=64, context=16, batch_size=2)


def test_it_saves_in_both_ways_and_counts_what_was_waited() -> None:
    result = json.loads(json.dumps(saving.run(rounds=2, threads=1, shape=SMALL)))
    none, in_turn, background = result["contestants"]
    assert none["ratio"]["value"] == 1.0
    assert none["stall_seconds"] == 0.0
    assert all(row["stall_seconds"] > 0 and row["stall_steps"]["value"] > 0 for row in (in_turn, background))
    parameters = 2 * 64 * 16 + 4 * 16 * 16 + 3 * 16 * 24 + 3 * 16
    assert 3 * 4 * parameters <= result["checkpoint_bytes"] < 3 * 4 * parameters + 10_000  # weights, two moments
    assert [row[0] for row in saving.table(result).rows] == [saving.NONE, saving.IN_TURN, saving.BACKGROUND]
