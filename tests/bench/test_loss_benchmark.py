"""The benchmark of the fused loss at a size that takes no time."""

import json
from pathlib import Path

import pytest
import torch

from windtunnel.bench import loss
from windtunnel.errors import InputError
from windtunnel.kernels import linear_cross_entropy

SMALL = loss.Shape(tokens=1024, width=8, vocabulary=20_000)  # 82 MB of logits


@pytest.mark.slow
def test_it_measures_time_and_memory_apart() -> None:
    said: list[str] = []
    result = json.loads(json.dumps(loss.run(rounds=1, threads=1, say=said.append, shape=SMALL)))
    naive, *others = result["contestants"]
    assert len(said) == len(result["contestants"])
    assert naive["ratio"]["value"] == naive["memory_ratio"]["value"] == 1.0
    logits = 4 * SMALL.tokens * SMALL.vocabulary
    assert naive["peak_bytes"] > 2 * logits  # logits, their logarithms, and the gradients of both
    assert result["counted_apart_bytes"] == 2 * 4 * SMALL.width * (SMALL.tokens + SMALL.vocabulary)
    ours = next(row for row in others if row["label"] == loss.CHUNKED)
    assert ours["peak_bytes"] < naive["peak_bytes"] / 5
    assert all(row["loss"] == pytest.approx(naive["loss"], rel=1e-5) for row in others)
    table = loss.table(result)
    assert len(table.rows) == len(result["contestants"])
    assert "20000" in table.caption


def test_systems_without_proc_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loss, "_STATUS", tmp_path / "none")
    with pytest.raises(InputError, match="/proc"):
        loss.run(rounds=1, threads=1, say=print, shape=SMALL)


def test_no_tensor_of_tokens_by_vocabulary_is_made() -> None:
    """The largest tensor is a chunk of 256 rows; the gradient of the table exists once."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes: list[int] = []

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
            result = function(*arguments, **(options or {}))
            sizes.extend(each.numel() for each in (result,) if isinstance(each, torch.Tensor))
            return result

    hidden, table = torch.randn(1024, 4, requires_grad=True), torch.randn(9000, 4, requires_grad=True)
    with Largest():
        linear_cross_entropy(hidden, table, torch.zeros(1024, dtype=torch.long))[0].backward()
    assert max(sizes) == 256 * 9000
