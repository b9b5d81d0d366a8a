"""`tokenizer train` and `tokenizer show`."""

import pytest


def test_a_vocabulary_is_trained_shown_and_used(command, text, tmp_path) -> None:
    trained = command("tokenizer", "train", "--data", text, "--vocab", "0.3k", "--out", "tok", "--json")
    assert trained.code == 0, trained.err
    assert trained.json["vocab"] == 300
    assert trained.json["bytes_per_token"] > 1
    cut = "parser \u2581 7 \u00e9"
    shown = command("tokenizer", "show", "tok", "--text", cut, "--json").json
    assert shown["fingerprint"] == trained.json["fingerprint"]
    assert len(shown["ids"]) == len(shown["pieces"])
    assert shown["pieces"][0] in cut
    assert "bytes" in command("tokenizer", "show", "tok", "--text", cut).out
    small = ("--set", "layers=1", "--set", "width=16", "--set", "heads=2", "--context", "16", "--batch", "4")
    run = command(
        "train", "palm", "--data", text, "--tokenizer", "tok", "--tokens", "512", *small, "--out", "a", "--json"
    )
    assert run.json["data"]["vocab"] == 300
    assert command("tokenizer", "show", "a", "--json").json["fingerprint"] == trained.json["fingerprint"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--vocab", "90k", "--out", "tok"), "the largest possible is"),
        (("train", "--vocab", "many", "--out", "tok"), "--vocab: expected a count"),
        (("train", "--vocab", "300", "--out", "taken"), "taken: exists and is not empty"),
        (("train", "--vocab", "300", "--out", "my.txt/tok"), "my.txt/tok: cannot be written"),
    ],
)
def test_bad_requests_write_nothing(command, text, tmp_path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    answer = command("tokenizer", *arguments, "--data", text)
    assert answer.code == 2
    assert said in answer.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.txt", "taken"]


def test_what_is_no_tokenizer_is_refused(command, text) -> None:
    assert "does not exist" in command("tokenizer", "show", "nowhere").error
    assert "not a tokenizer.json" in command("tokenizer", "show", text).error
