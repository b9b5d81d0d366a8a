"""The sweeps over widths at sizes that take no time, asked of the command line."""

import math

import pytest

from windtunnel.bench import transfer
from windtunnel.data.corpus import read_corpus


@pytest.mark.slow
def test_sweeps_of_both_parametrisations_and_where_their_best_rates_lie(command, text, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(transfer, "WIDTHS", (16, 32))
    monkeypatch.setattr(transfer, "RATES", (0.006, 0.012, 0.024))
    monkeypatch.setattr(transfer, "STEPS", 4)
    monkeypatch.setattr(transfer, "default_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(transfer, "read_corpus", lambda paths: read_corpus([text]))
    answer = command("bench", "transfer", "--rounds", 2, "--threads", 1, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert set(found["widths"]) == set(found["octaves"]) == {"mup", "standard"}
    for kind, widths in found["widths"].items():
        losses = [loss for width in widths.values() for rate in width["losses"] for loss in rate]
        assert len(losses) == 2 * 3 * 2  # widths, rates, seeds
        assert all(0 < loss < 1.2 * math.log(257) for loss in losses)
        assert found["octaves"][kind] == pytest.approx(math.log2(widths["32"]["best"] / widths["16"]["best"]))
    base = [kind["16"]["losses"] for kind in found["widths"].values()]
    assert base[0] == base[1]  # muP's base width is the standard parametrisation
    shown = transfer.table(found)
    assert [row[:2] for row in shown.rows] == [[kind, width] for kind in ("muP", "standard") for width in ("16", "32")]


def test_the_best_rate_is_the_vertex_of_a_parabola(monkeypatch) -> None:
    monkeypatch.setattr(transfer, "RATES", (1.0, 2.0, 4.0))
    parabola = [(math.log2(rate) - 1.25) ** 2 for rate in transfer.RATES]
    assert transfer.best_rate(parabola) == pytest.approx(2.0**1.25)
    assert transfer.best_rate([1.0, 2.0, 3.0]) == 1.0
