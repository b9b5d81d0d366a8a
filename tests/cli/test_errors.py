"""How commands end when something is wrong: one line, an exit code, JSON where it was asked for."""

import pytest

from windtunnel.errors import WorkError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recip"], "windtunnel has no verb 'recip'; did you mean recipes"),
        (["tokenizer", "trian"], "windtunnel tokenizer has no verb 'trian'; did you mean train"),
        (["recipes", "--jsn"], "windtunnel recipes has no option --jsn; did you mean --json"),
        (["--versoin"], "windtunnel has no option --versoin; did you mean --version"),
        (["train", "llama", "--out", "x"], "--tokens is missing; see windtunnel train --help"),
        (["train", "--out", "x", "--tokens", "1k"], "RECIPE|RUN is missing"),
        (["train", "llama", "--tokens", "some", "--out", "x"], "--tokens: expected a count such as"),
        (["train", "llama", "--tokens"], "option '--tokens' requires an argument"),
        (["train", "llama", "--lr", "fast", "--tokens", "1k", "--out", "x"], "--lr: "),
        (["recipes", "llama"], "unexpected extra argument"),
        (["compare"], "ARM... is missing"),
        (["bench", "train", "--set", "layer=1"], "bench train has no setting 'layer'; did you mean layers"),
        (["bench", "train", "--rounds", "0"], "--rounds: expected at least 1, got 0"),
        (["bench", "decode", "--prompts", "64,some"], "--prompts: expected a count such as"),
        (["bench", "decode", "--tokens", "1"], "tokens: expected at least 2, got 1"),
        (["bench", "decode", "llama", "llama"], "arm 'llama' is there twice; give one a label: other=llama"),
        (["bench", "decode", "lama"], "did you mean llama"),
    ],
)
def test_usage_errors_are_one_line(command, arguments: list[str], said: str) -> None:
    answer = command(*arguments)
    assert answer.code == 2
    assert said in answer.error


def test_with_json_the_error_is_an_object_too(command) -> None:
    answer = command("show", "lama", "--json")
    assert answer.code == 2
    assert answer.json == {"error": answer.error, "exit_code": 2}


def test_failed_work_ends_with_one(command, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise WorkError("the disk is full\nand so on")

    monkeypatch.setattr("windtunnel.cli.sources.find_spec", fail)
    answer = command("show", "llama")
    assert (answer.code, answer.error) == (1, "the disk is full and so on")


def test_a_fault_of_ours_shows_a_traceback_only_for_debugging(command, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("spec")

    monkeypatch.setattr("windtunnel.cli.sources.find_spec", fail)
    answer = command("show", "llama")
    assert answer.code == 1
    assert "KeyError: 'spec'" in answer.error
    assert "WINDTUNNEL_DEBUG=1" in answer.error
    monkeypatch.setenv("WINDTUNNEL_DEBUG", "1")
    from typer.testing import CliRunner

    from windtunnel.cli.app import app

    assert isinstance(CliRunner().invoke(app, ["show", "llama"]).exception, KeyError)


def test_ctrl_c_ends_with_130(command, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("windtunnel.cli.sources.find_spec", interrupt)
    assert command("show", "llama").code == 130
