"""The benchmark of imports at a size that takes no time."""

import json

import torch

from windtunnel import recipes
from windtunnel.bench import importing


def test_it_copies_and_imports_the_same_file() -> None:
    spec = recipes.build("llama", vocab=40, layers=1, width=16, context=16, heads=2)
    given = {"small": ("llama", spec, torch.bfloat16)}
    result = json.loads(json.dumps(importing.run(rounds=2, threads=1, given=given)))
    (model,) = result["models"]
    copy, imported = model["contestants"]
    assert copy["ratio"]["value"] == 1.0
    assert len(copy["seconds"]) == len(imported["seconds"]) == 2
    parameters = 2 * 40 * 16 + 4 * 16 * 16 + 3 * 16 * spec.blocks[0].mlp.hidden + 3 * 16  # type: ignore[attr-defined]
    assert 2 * parameters < model["bytes"] < 2 * parameters + 5000
    assert [row[1] for row in importing.table(result).rows] == [importing.COPY, importing.IMPORT]
