"""The benchmark of the server: the same texts over HTTP and from the engine."""

import pytest

from windtunnel.bench import serve


@pytest.mark.slow
def test_both_ways_give_as_many_tokens() -> None:
    shape = serve.Shape(streams=3, tokens=5, layers=1, width=16, vocab=300, context=32)
    result = serve.run(rounds=2, threads=1, say=lambda words: None, shape=shape)
    assert result["tokens"]["engine"] == result["tokens"]["server"] > 3
    assert len(result["added_milliseconds"]) == 2
    table = serve.table(result)
    assert [row[0] for row in table.rows] == ["engine", "server"]
    assert "over HTTP" in table.note
