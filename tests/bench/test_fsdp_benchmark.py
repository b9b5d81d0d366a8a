"""The benchmark of two processes: everyone trains alike, and the table says what was measured."""

import pytest

from windtunnel.bench import fsdp
from windtunnel.bench.shape import Shape
from windtunnel.errors import InputError


@pytest.mark.slow
def test_all_contestants_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Shape(layers=2, width=16, heads=2, hidden=24, vocab=67, context=8, batch_size=4)
    monkeypatch.setattr(fsdp, "Shape", lambda **sizes: Shape(**sizes) if sizes else small)
    result = fsdp.run(rounds=1, threads=2)
    first, *others = result["losses"].values()
    assert others == pytest.approx([first] * 2, abs=1e-5)
    rows = fsdp.table(result).rows
    assert [row[0] for row in rows] == list(fsdp.CONTESTANTS)
    assert rows[0][2].startswith("1.000")
    assert [row[3] for row in rows] == ["", "0.80", "0.80"]


def test_threads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(InputError, match="must be even, got 3"):
        fsdp.run(rounds=1, threads=3)
