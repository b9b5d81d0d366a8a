"""The benchmark of an imported GPT-Neo at a size that takes no time."""

import json

import pytest

from windtunnel import recipes
from windtunnel.bench import neo


def test_both_compute_the_same_and_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neo, "PROMPT", 5)
    monkeypatch.setattr(neo, "TOKENS", 6)
    spec = recipes.build("gpt_neo", vocab=50, layers=2, width=32, heads=4, context=64, window=8)
    result = json.loads(json.dumps(neo.run(rounds=2, threads=1, spec=spec, lengths=(40,), compiled=False)))
    (forward,) = result["forward"]
    assert forward["error"] < 1e-5
    assert result["text"]["same_text"]
    assert result["text"]["compile_seconds"] is None
    labels = [row[1] for row in neo.table(result).rows]
    assert labels == [neo.THEIRS, neo.OURS, neo.THEIRS, neo.EAGER, neo.PRODUCTS]
    assert all(len(each["seconds"]) == 2 for each in [*forward["contestants"], *result["text"]["contestants"]])
