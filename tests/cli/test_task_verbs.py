"""Tasks from the command line: what is printed, and what is refused before any work."""

import pytest

SIZES = ("--set", "layers=1", "--set", "width=16", "--batch", "4", "--threads", "1", "--items", "100")
TASK = ("--task", "mqar:vocab=16,length=16,pairs=2")


def test_a_run_on_a_task_says_its_accuracy_and_its_chance(command):
    answer = command("train", "llama", *TASK, "--tokens", "640", *SIZES, "--out", "run", "--json")
    assert answer.code == 0, answer.err
    record = answer.json
    assert 0 <= record["accuracy"] <= 1
    assert record["chance"] == 0.125
    assert record["settings"]["context"] == 16
    assert record["data"]["task"]["pairs"] == 2
    assert "bits_per_byte" not in record
    again = command("train", "llama", *TASK, "--tokens", "640", *SIZES, "--out", "run", "--resume")
    assert "chance 0.125" in again.out
    assert "pairs=4" in again.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "mqar:pairs=40,length=64"), "at least 160"),
        (("--task", "mkar"), "did you mean mqar"),
        ((*TASK, "--data", "my.txt"), "--data belongs to a text"),
        ((*TASK, "--vocab", "100"), "--vocab belongs to a text"),
        ((*TASK, "--evaluation-tokens", "100"), "--evaluation-tokens belongs to a text"),
        ((*TASK, "--set", "vocab=100"), "--vocab belongs to a text"),
        ((*TASK, "--items", "0"), "at least 1"),
        (("--task", "state_tracking:length=2"), "different"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(command, tmp_path, options, words):
    answer = command("train", "llama", "--tokens", "640", "--out", "run", "--set", "width=16", *options)
    assert answer.code == 2
    assert words in answer.error
    assert not (tmp_path / "run").exists()


def test_a_table_of_positions_that_is_too_short_is_refused(command, tmp_path):
    answer = command("train", "gpt3", *TASK, "--tokens", "640", *SIZES, "--context", "8", "--out", "run")
    assert answer.code == 2
    assert "its positions end at 8, an item has 16 tokens" in answer.error


def test_items_without_a_task_are_refused(command):
    answer = command("train", "llama", "--tokens", "640", "--out", "run", "--items", "5")
    assert answer.code == 2
    assert "--items belongs to a task" in answer.error
