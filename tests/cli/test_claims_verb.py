"""`windtunnel claims`."""

from pathlib import Path

from windtunnel.claims import CALLS, CLAIMS, judged, page, read_filed

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_the_command_writes_the_page_and_json(command, tmp_path):
    out = tmp_path / "claims.md"
    answer = command("claims", "--results", RESULTS, "--write", out, "--json")
    assert answer.code == 0, answer.err
    assert out.read_text(encoding="utf-8") == page(judged(CLAIMS, read_filed(RESULTS)))
    assert sum(answer.json["calls"].values()) == len(answer.json["claims"])
    assert set(answer.json["calls"]) == set(CALLS)


def test_a_place_that_is_not_there_is_refused(command, tmp_path):
    answer = command("claims", "--results", RESULTS, "--write", tmp_path / "no" / "claims.md")
    assert answer.code == 2
    assert "no such folder" in answer.err
