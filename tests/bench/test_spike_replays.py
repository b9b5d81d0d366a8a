"""The experiment of the replays: the same state repeats its spike, whatever others do."""

from typing import Any

import pytest

from windtunnel.bench import spikes
from windtunnel.claims import Filed
from windtunnel.claims.benches import replays
from windtunnel.training.settings import TrainingSettings


def test_the_same_state_spikes_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """At a rate that breaks every model within some tens of steps."""
    monkeypatch.setattr(spikes, "default_cache", lambda: tmp_path)
    monkeypatch.setattr(spikes, "read_corpus", _small_corpus(tmp_path))
    broken: TrainingSettings = spikes._SETTINGS.replace(learning_rate=2.0, warmup=0.1)
    monkeypatch.setattr(spikes, "_SETTINGS", broken)
    said: list[str] = []
    result = spikes.run(rounds=2, threads=1, say=said.append)
    assert all(onset is not None and onset < 100 for onset in result["onsets"])
    same = [replay["spiked"] for replay in result["replays"] if replay["state"] == "the same state"]
    assert same == [True, True]
    assert len(said) == 2
    table = spikes.table(result)
    assert table.rows[0] == ["the same state", "2", "2"]
    assert str(result["onsets"][0]) in table.note
    (alone,) = replays(Filed("spikes.json", result))
    assert alone.doubts
    result["replays"] += [{"state": "itself, earlier", "spiked": each} for each in (True, False, False, False)]
    (share,) = replays(Filed("spikes.json", result))
    assert (share.value, share.doubts) == (0.25, ())


def _small_corpus(folder: Any) -> Any:
    from windtunnel.data.corpus import read_corpus

    texts = folder / "texts"
    texts.mkdir()
    for index in range(12):
        (texts / f"{index}.txt").write_text(f"{index} " + "the wind blows over a wing and lifts it until stall " * 60)
    return lambda paths: read_corpus([texts])
