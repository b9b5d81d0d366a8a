"""`windtunnel needles`: a file that training reads, and what is refused."""

import json
from pathlib import Path

from windtunnel.data.corpus import read_corpus


def test_a_corpus_with_needles_is_a_corpus(command, text):
    done = command("needles", "--data", text, "--share", 1, "--longest", 300, "--out", "needles.jsonl", "--json")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in Path("needles.jsonl").read_text().splitlines()]
    assert done.json["documents"] == done.json["with_needles"] == len(lines)
    documents = list(read_corpus(["needles.jsonl"]).documents)
    assert [document.text for document in documents] == [line["text"] for line in lines]
    assert {document.set for document in documents} == {"needles"}
    assert done.json["bytes"] == sum(len(document.text.encode()) for document in documents)


def test_nothing_is_written_where_nothing_can_be(command, text):
    assert "name a larger one" in command("needles", "--data", text, "--share", 1e-9, "--out", "n.jsonl").error
    assert "no such folder" in command("needles", "--data", text, "--out", "gone/n.jsonl").error
    assert "share: 2 given" in command("needles", "--data", text, "--share", 2, "--out", "n.jsonl").error
    assert not list(Path().glob("*n.jsonl*"))
