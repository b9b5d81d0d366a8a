"""`windtunnel bench decode` at a size that takes no time."""

import json
from pathlib import Path

TINY = ["--set", "layers=1", "--set", "width=16", "--set", "vocab=32", "--prompts", "4", "--batches", "1,2"]
SHORT = ["--tokens", "3", "--rounds", "1", "--threads", "1", "--positions", "none"]


def test_the_figures_are_written_and_printed(command) -> None:
    answer = command("bench", "decode", "llama", "short=griffin:window=3", *TINY, *SHORT, "--out", "made", "--json")
    assert answer.code == 0
    assert [arm["label"] for arm in answer.json["arms"]] == ["llama", "short"]
    assert [(cell["prompt"], cell["batch"]) for cell in answer.json["cells"]] == [(4, 1), (4, 2)]
    assert answer.json["cells"][0]["bandwidth"]["high"] is None  # one round knows no interval
    assert json.loads(Path("made/decode.json").read_text()) == answer.json
    assert Path("made/decode.html").read_text().startswith("<!doctype html>")


def test_tables_for_people(command) -> None:
    answer = command("bench", "decode", "hawk", *TINY, *SHORT)
    assert answer.code == 0
    for words in ("Milliseconds to the first token", "State of one sequence", "16 requests", "prompt lookup"):
        assert words in answer.out
    assert "Prompt from which" not in answer.out  # nothing to compare with


def test_a_folder_that_cannot_be_made_is_refused_first(command) -> None:
    Path("taken").write_text("")
    answer = command("bench", "decode", "hawk", *TINY, *SHORT, "--out", "taken")
    assert answer.code == 2
    assert answer.error.startswith("--out taken: ")
