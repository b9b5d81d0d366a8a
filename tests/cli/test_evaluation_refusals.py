"""Evaluations that cannot be: refused by every verb before work starts, with the way out, and nothing written."""

from pathlib import Path

import pytest

from tests.evaluation.conftest import run_folder, tiny
from windtunnel.data.tokenizers import CharacterTokenizer


@pytest.fixture
def runs(text: Path) -> Path:
    """`rotary` and `table`, untrained, which read bytes; `letters`, of another tokenizer; texts beside them."""
    folder = text.parent
    for name, recipe in (("rotary", "llama"), ("table", "gpt3"), ("letters", "llama")):
        run_folder(folder / name, tiny(recipe))
    for file in (folder / "letters" / "tokenizer").iterdir():
        file.unlink()
    CharacterTokenizer("abc").save(folder / "letters" / "tokenizer")
    (folder / "empty.txt").write_text("\n \n")
    (folder / "empty.jsonl").write_text('{"text": ""}\n')
    (folder / "short.txt").write_text("A few words. ")
    return folder


MY = ("--data", "my.txt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("table", *MY, "--tasks", "loss:context=32"), "its positions end at 16, and loss asks for 32 tokens; loss:co"),
        (("rotary", "table", *MY, "--tasks", "length:longest=2"), "table: its positions end at 16, and length asks"),
        (
            ("table", *MY, "--tasks", "needle:longest=400"),
            "needle asks for 400 tokens; needle:longest=COUNT asks",
        ),
        (("table", *MY, "--tasks", "decoding:length=64"), "decoding asks for 99 tokens; decoding:length=COUNT"),
        (("rotary", *MY, "--tasks", "passkey"), "the shortest item has 406; passkey:longest=COUNT asks for longer"),
        (
            ("rotary", "--data", "short.txt"),
            "no document has 16 tokens, the longest has 13; context-gain:context",
        ),
        (("rotary", "--data", "short.txt", "--tasks", "length"), "or name longer by --data"),
        (("rotary", "--data", "short.txt", "--tasks", "needle:longest=300"), "name a longer text by --data"),
        (("rotary", "--data", "empty.txt"), "empty.txt is empty: it holds no text"),
        (("rotary", "--data", "empty.jsonl"), "empty.jsonl is empty: it holds no text"),
        (("rotary", "--data", "none.txt"), "none.txt does not exist"),
        (("rotary", *MY, "--tasks", "loss:most=0"), "most is 0; at least 1"),
        (
            ("rotary", "letters", *MY),
            "is not that of rotary (bytes-257): figures by token cannot be compared; eval",
        ),
        (("letters", *MY), "text holds '\\n', which is not in the alphabet 'abc'; choose a text of these characters"),
        (
            ("letters", "--data", "abc.txt", "--tasks", "passkey:longest=500"),
            "cannot write the task's texts: text",
        ),
        (("letters", "--data", "abc.txt", "--tasks", "ruler:longest=2000"), "or leave the task out"),
    ],
)
def test_questions_that_cannot_be_asked(command, runs, arguments, said) -> None:
    (runs / "abc.txt").write_text("abcabc" * 300)
    answer = command("evaluate", *arguments, "--threads", 1, "--out", "page")
    assert answer.code == 2
    assert said in answer.error
    assert not (runs / "page").exists()
    assert not list(runs.glob("*/evaluations"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--data", "my.txt", "--evaluate", "length:longest=4"),
            "gpt3: its positions end at 64, and length asks for",
        ),
        (("--data", "my.txt", "--evaluate", "loss:context=500"), "loss:context=COUNT reads shorter windows"),
        (("--data", "my.txt", "--evaluate", "lose"), "--evaluate: unknown task 'lose'; did you mean loss"),
        (("--data", "my.txt", "--evaluate", "passkey"), "passkey:longest=COUNT asks for longer"),
        (("--task", "mqar", "--evaluate", "loss"), "a task's runs read no text"),
        (("--task", "mqar:length=64,pairs=4", "--context", 16), "an item of mqar has 64 tokens; leave it out"),
        (("--data", "empty.txt"), "empty.txt is empty: it holds no text"),
        (("--data", "short.txt"), "holding one out needs at least two"),
        (("--data", "my.txt", "--tokenizer", "letters/tokenizer"), "is not in the alphabet 'abc'; choose a text of"),
        (("--data", "my.txt", "--evaluation-tokens", 0), "evaluation"),
    ],
)
def test_studies_that_could_not_be_asked(command, runs, arguments, said) -> None:
    words = ("compare", "llama", "gpt3", "--preset", "smoke", "--set", "width=16", "--set", "layers=1")
    answer = command(*words, *arguments, "--out", "study")
    assert answer.code == 2
    assert said in answer.error
    assert not (runs / "study").exists()


def test_runs_that_cannot_be_extended(command, runs) -> None:
    small = ("--set", "width=16", "--set", "heads=2", "--context", 16, "--vocab", "bytes", "--threads", 1)
    for name, recipe in (("first", "llama"), ("learned", "gpt3")):
        taught = ("--tokens", 256, "--batch", 4, "--evaluation-tokens", 800, "--data", "my.txt", "--out", name)
        assert command("train", recipe, "--set", "layers=1", *small, *taught).code == 0
    for run, options, said in (
        ("learned", ("--method", "none", "--factor", 2), "its positions end at 16, and --factor 2 needs 32 tokens"),
        ("learned", ("--method", "yarn", "--factor", 2), "--method linear interpolates their table"),
        ("first", ("--method", "yarn", "--factor", 1), "1 times 16 tokens is no longer than 16; above 1"),
        ("first", ("--method", "yarn", "--factor", "nan"), "--factor: expected a number above 1, got nan"),
        ("first", ("--method", "yarn", "--factor", "inf"), "--factor: expected a number above 1, got inf"),
        ("first", ("--method", "yarm", "--factor", 2), "did you mean yarn"),
        ("first", ("--method", "yarn", "--factor", 2, "--data", "empty.txt"), "empty.txt is empty: it holds no text"),
        ("first", ("--method", "yarn", "--factor", 2, "--data", "short.txt"), "holding one out needs at least two"),
        ("rotary", ("--method", "yarn", "--factor", 2), "is not finished; go on with it by --resume first"),
        ("none", ("--method", "yarn", "--factor", 2), "not a run folder"),
    ):
        answer = command("extend", run, *options, "--tokens", "1k", "--out", "longer")
        assert (answer.code, said in answer.error) == (2, True), (run, options, answer.err)
        assert not (runs / "longer").exists()
