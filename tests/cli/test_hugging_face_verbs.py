"""`windtunnel import` and `windtunnel export`: what they print, and one line where they refuse."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from tests.interop.test_gpt_neo import neo

Command = Callable[..., Answer]


def test_there_and_back(command: Command, tmp_path: Path) -> None:
    neo(vocab_size=300).save_pretrained("neo")
    answer = command("import", "neo", "--out", "run", "--json")
    record = answer.json["imported"]
    assert (answer.code, record["family"], record["tokenizer"], record["dtype"]) == (0, "gpt_neo", None, "float32")
    answer = command("export", "run", "--out", "hf", "--dtype", "bfloat16", "--json")
    found = answer.json
    assert (answer.code, found["architecture"], found["dtype"]) == (0, "GPTNeoForCausalLM", "bfloat16")
    assert found["files"] == ["model.safetensors"]
    answer = command("import", "neo", "--out", "narrow", "--dtype", "float16", "--json")
    assert (answer.code, answer.json["imported"]["dtype"]) == (0, "float16")
    answer = command("import", "hf", "--out", "again")
    assert answer.code == 0
    assert "gpt_neo (GPTNeoForCausalLM)" in answer.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "./nowhere", "--out", "run"], "./nowhere: no such folder"),
        (["export", "nowhere", "--out", "hf"], "nowhere: not a run folder: nothing there"),
        (["import", "./nowhere", "--out", "run", "--dtype", "int8"], "--dtype: expected float32, bfloat16, float16"),
        (["export", "nowhere", "--out", "hf", "--dtype", "int8"], "--dtype: expected float32, bfloat16, float16"),
    ],
)
def test_refusals(arguments: list[str], words: str, command: Command) -> None:
    answer = command(*arguments)
    assert answer.code == 2
    assert words in answer.error
    assert not list(Path().iterdir())
