"""`generate`: the same text by every way in, as it comes, with figures beside it; and what it refuses."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import windtunnel as wt
from tests.cli.conftest import Answer
from windtunnel.checkpoint import load as load_checkpoint
from windtunnel.checkpoint import save as save_checkpoint
from windtunnel.cli.writing import shown

Command = Callable[..., Answer]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on text that is not ASCII, one that drafts for it, and one with other tokens."""
    from windtunnel.cli.app import app

    folder = tmp_path_factory.mktemp("runs")
    text, draw = folder / "texts", random.Random(0)
    text.mkdir()
    for index in range(12):
        words = " ".join(draw.choice(["날개", "é", "→", "wing", "lift."]) for _ in range(150))
        (text / f"{index}.txt").write_text(words, encoding="utf-8")
    for name, recipe, data, context in (
        ("main", "llama", text, 32),
        ("small", "diff_transformer", text, 32),
        ("digits", "llama", "digits", 64),
    ):
        sizes = ("--set", "layers=1", "--set", "width=16", "--set", "heads=2", "--context", context, "--batch", 4)
        taught = ("--tokens", "12k", "--lr", 0.03, "--evaluation-tokens", 640, "--max-epochs", 1000)
        arguments = ["train", recipe, "--data", data, *sizes, *taught, "--out", folder / name]
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exit_code == 0, done.output
    return folder


def test_text_on_stdout_figures_on_stderr(command: Command, runs: Path) -> None:
    answer = command("generate", runs / "main", "--prompt", "날", "--tokens", 24, "--seed", 5)
    assert answer.code == 0, answer.err
    expected = wt.generate(wt.load(runs / "main"), "날", tokens=24, seed=5)
    assert answer.out == expected.removesuffix("\n") + "\n"
    for words in ("24 tokens after 4", "tokens/s", "first after", "state "):
        assert words in " ".join(answer.err.split())
    assert command("generate", runs / "main", "--prompt", "날", "--tokens", 24, "--seed", 6).out != answer.out


def test_a_file_and_stdin_give_what_the_option_gives(command: Command, runs: Path, tmp_path: Path) -> None:
    from windtunnel.cli.app import app

    (tmp_path / "start.txt").write_bytes("é →".encode())
    options = ("--tokens", 16, "--temperature", 0)
    expected = command("generate", runs / "main", "--prompt", "é →", *options)
    assert expected.code == 0, expected.err
    assert command("generate", runs / "main", "--file", "start.txt", *options).out == expected.out
    arguments = [str(each) for each in ("generate", runs / "main", *options)]
    assert CliRunner().invoke(app, arguments, input="é →".encode()).stdout == expected.out


def test_json_holds_everything(command: Command, runs: Path) -> None:
    options = ("--prompt", "wing", "--tokens", 12, "--samples", 3, "--logprobs", 2, "--top-p", 0.9, "--stop", "zzz")
    record = command("generate", runs / "main", *options, "--draft", runs / "small", "--json").json
    opened = wt.load(runs / "main")
    assert record["settings"]["top_p"] == 0.9
    assert record["checkpoint"] == opened.record["checkpoint"]
    assert [sample["seed"] for sample in record["samples"]] == [0, 1, 2]
    for sample in record["samples"]:
        expected = wt.generate(opened, "wing", tokens=12, seed=sample["seed"], top_p=0.9, draft=wt.load(runs / "small"))
        assert sample["text"] == expected
        assert opened.tokenizer is not None
        assert opened.tokenizer.decode(sample["tokens"]) == expected
        assert sample["finish"] == "length"
        assert [each["token"] for each in sample["logprobs"]] == sample["tokens"]
        assert all(each["top"][0]["logprob"] >= each["logprob"] for each in sample["logprobs"])
        assert all(len(each["top"]) == 2 for each in sample["logprobs"])
    assert record["usage"]["prompt_tokens"] == 5
    assert record["usage"]["new_tokens"] == 36
    assert 0 < record["timing"]["first_token_seconds"] <= record["timing"]["seconds"]
    assert record["speculation"]["kept"] <= record["speculation"]["drafted"]
    plain = command("generate", runs / "main", "--prompt", "a", "--tokens", 2, "--json").json
    assert plain["speculation"] is None
    assert "logprobs" not in plain["samples"][0]


def test_a_draft_changes_no_greedy_text(command: Command, runs: Path) -> None:
    options = ("--prompt", "날개 é → wing. 날", "--tokens", 40, "--temperature", 0, "--at-limit", "slide")
    plain = command("generate", runs / "main", *options)
    for draft in ("lookup", runs / "small"):
        drafted = command("generate", runs / "main", *options, "--draft", draft)
        assert drafted.out == plain.out
        assert "drafted tokens kept" in " ".join(drafted.err.split())
    assert "forgotten" in plain.err


def test_stop_strings_and_full_contexts_end_the_text(command: Command, runs: Path) -> None:
    whole = command("generate", runs / "main", "--prompt", "x", "--tokens", 16, "--json").json["samples"][0]["text"]
    stop = whole[4:6]
    cut = command("generate", runs / "main", "--prompt", "x", "--tokens", 16, "--stop", stop, "--json").json
    assert cut["samples"][0]["text"] == whole[: whole.index(stop)]
    assert cut["samples"][0]["finish"] == "stop"
    full = command("generate", runs / "main", "--prompt", "x" * 20, "--tokens", 50, "--temperature", 0)
    assert "--at-limit slide" in full.err


def test_samples_follow_one_another(command: Command, runs: Path) -> None:
    out = command("generate", runs / "main", "--prompt", "x", "--tokens", 9, "--samples", 3, "--min-p", 0.1).out
    expected = [wt.generate(wt.load(runs / "main"), "x", tokens=9, seed=seed, min_p=0.1) for seed in range(3)]
    assert out == "".join(f"--- {k + 1} of 3\n{text.removesuffix(chr(10))}\n" for k, text in enumerate(expected))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--temperature", "0", "--top-k", "4"), "temperature 0 takes the likeliest token; top_k"),
        (("--temperature", "0", "--samples", "2"), "--samples: 2 texts at temperature 0"),
        (("--prompt", "x" * 31), "32 tokens leave no room in a context of 32"),
        (("--file", "nowhere.txt"), "--prompt and --file"),
        (("--logprobs", "2"), "--logprobs: are printed with --json only"),
        (("--tokens", "0"), "tokens: at least 1"),
        (("--at-limit", "roll"), "expected stop or slide, got 'roll'"),
        (("--draft", "nowhere"), "nowhere: not a run folder"),
        (("--checkpoint", "step-1"), "has no checkpoint 'step-1'"),
        (("--device", "tpu"), "device is 'tpu'"),
        (("--stop", ""), "stop: an empty string"),
        (("--top-p", "1.5"), "top_p must be in (0, 1]"),
    ],
)
def test_what_makes_no_sense_is_one_line(command: Command, runs: Path, options: tuple[str, ...], said: str) -> None:
    prompt = () if "--prompt" in options else ("--prompt", "x")
    answer = command("generate", runs / "main", *prompt, *options)
    assert answer.code == 2
    assert said in answer.error
    assert answer.out == ""


def test_runs_that_cannot(command: Command, runs: Path, tmp_path: Path) -> None:
    other = command("generate", runs / "main", "--prompt", "x", "--draft", runs / "digits")
    assert "draft: has the tokenizer characters-" in other.error
    assert "nowhere.txt" in command("generate", runs / "main", "--file", "nowhere.txt").error
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-r", runs / "main", copied], check=True)
    (weights,) = (copied / wt.load(copied).record["result"]["horizons"]["1.0"]["checkpoint"]).glob("model*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-3] ^= 255
    weights.write_bytes(data)
    damaged = command("generate", copied, "--prompt", "x", "--json")
    assert damaged.code == 2
    assert damaged.json == {"error": damaged.error, "exit_code": 2}
    subprocess.run(["rm", "-r", copied / "tokenizer"], check=True)
    subprocess.run(["cp", "-r", runs / "main" / "checkpoints", copied], check=True)
    assert "no tokenizer" in command("generate", copied, "--prompt", "x").error
    shutil.rmtree(copied / "checkpoints")
    (copied / "result.json").unlink()
    assert "no whole checkpoint yet" in command("generate", copied, "--prompt", "x").error


def test_weights_that_are_no_numbers(command: Command, runs: Path, tmp_path: Path) -> None:
    """Those of a run end its text with one line, those of a draft only its drafts."""
    broken = tmp_path / "broken"
    shutil.copytree(runs / "small", broken)
    place = Path(wt.load(broken).record["checkpoint"])
    kept = load_checkpoint(place)
    weights = {name: tensor * float("nan") for name, tensor in kept.tensors["model"].items()}
    save_checkpoint(place, {**kept.tensors, "model": weights}, kept.record)
    for words in ((), ("--json",)):
        answer = command("generate", broken, "--prompt", "x", "--tokens", 8, *words)
        assert (answer.code, "logits that are not numbers" in answer.error) == (1, True)
    plain = command("generate", runs / "main", "--prompt", "x", "--tokens", 8)
    drafted = command("generate", runs / "main", "--prompt", "x", "--tokens", 8, "--draft", broken)
    assert (drafted.code, drafted.out) == (0, plain.out)
    assert "goes on without it" in drafted.err


def test_prompts_that_the_tokenizer_cannot_hold(command: Command, runs: Path) -> None:
    Path("bad").write_bytes(b"\xff\xfe")
    assert "'날', which is not in the alphabet" in command("generate", runs / "digits", "--prompt", "날").error
    assert "bytes are not UTF-8 at offset 0" in command("generate", runs / "digits", "--file", "bad").error


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert shown("a\x1b[31m\té\n날\r\x07") == "a\ufffd[31m\té\n날\ufffd\ufffd"


def test_ctrl_c_ends_with_what_there_was(program: Any, runs: Path) -> None:
    greedy = ("--temperature", "0")  # drawn text may end by itself
    process = program("generate", runs / "main", "--prompt", "x", "--tokens", "1M", "--at-limit", "slide", *greedy)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "tokens/s" in err
    assert out.endswith("\n")


def test_on_a_terminal_it_asks(runs: Path, tmp_path: Path) -> None:
    """Two prompts and Ctrl-D, typed on a pseudo-terminal; the second with its end corrected by Backspace."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "windtunnel", "generate", str(runs / "main"), "--tokens", "6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    process = subprocess.Popen(
        [*command, "--temperature", "0"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=tmp_path
    )
    os.close(theirs)
    seen = ""
    for typed in (b"wing\r", b"xy\x7f\r", b"\x04"):
        seen += _until(ours, "prompt> ")
        os.write(ours, typed)
    assert process.wait(timeout=60) == 0
    os.close(ours)
    opened = wt.load(runs / "main")
    for prompt in ("wing", "x"):
        expected = wt.generate(opened, prompt, tokens=6, temperature=0.0)
        assert shown(expected).replace("\n", "\r\n") in seen
    assert seen.count("tokens/s") == 2


def _until(terminal: int, words: str) -> str:
    """What a terminal shows up to some words."""
    data, deadline = b"", time.monotonic() + 60
    while words.encode() not in data:
        assert time.monotonic() < deadline, data
        data += os.read(terminal, 4096)
    return data.decode(errors="replace")


def test_the_record_is_one_json_document(command: Command, runs: Path) -> None:
    answer = command("generate", runs / "main", "--prompt", "\u202e날", "--tokens", 4, "--json")
    assert json.loads(answer.out)["samples"][0]["finish"] in ("length", "stop")
