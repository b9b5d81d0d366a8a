"""`train`: what it does, what it refuses, how it stops and goes on."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from windtunnel import recipes

SMALL = ("--set", "layers=1", "--set", "width=16", "--set", "heads=2", "--context", "16", "--batch", "4")


def test_a_run_says_what_it_does_and_what_came_of_it(command, text, tmp_path) -> None:
    answer = command("train", "ngpt", "--data", text, "--tokens", "2k", *SMALL, "--out", "runs/a")
    assert answer.code == 0, answer.err
    for words in (
        "1 layers, width 16",
        "31 steps of 4 x 16",
        "ngpt's own at width 16",
        "weight_decay 0 instead of",
        "bits a byte",
    ):
        assert words in " ".join(answer.out.split())
    assert "ngpt: " in answer.err  # progress
    assert {"spec.json", "run.json", "metrics.jsonl", "result.json"} <= {
        path.name for path in (tmp_path / "runs/a").iterdir()
    }


def test_with_json_stdout_holds_nothing_else(command, text, tmp_path) -> None:
    answer = command("train", "llama", "--data", text, "--tokens", "1k", *SMALL, "--out", "a", "--json")
    record = answer.json
    stored = json.loads((tmp_path / "a/result.json").read_text())
    assert record["loss"] == stored["horizons"]["1.0"]["loss"]
    assert record["settings"]["learning_rate"] == pytest.approx(recipes.training("llama").learning_rate_at(16))
    assert record["settings"]["weight_decay"] == 0.1
    assert record["own_settings"] == []
    assert record["data"]["tokenizer"] == "bytes-257"
    assert record["tokens_per_second"] > 0
    again = command("train", "llama", "--data", text, "--tokens", "1k", *SMALL, "--out", "a", "--json", "--resume")
    assert again.json["result"] == record["result"]


def test_common_settings_leave_the_recipe_its_rate_alone(command, text) -> None:
    common = ("--settings", "common", "--json")
    record = command("train", "ngpt", "--data", text, "--tokens", "512", *SMALL, "--out", "a", *common).json
    assert record["settings"]["weight_decay"] == 0.1
    assert record["settings"]["warmup"] == 0.03
    assert record["settings"]["learning_rate"] == pytest.approx(recipes.training("ngpt").learning_rate_at(16))
    given = ("--lr", "0.01", "--weight-decay", "0.2", "--json")
    record = command("train", "ngpt", "--data", text, "--tokens", "512", *SMALL, "--out", "b", *given).json
    assert (record["settings"]["learning_rate"], record["settings"]["weight_decay"]) == (0.01, 0.2)
    assert record["settings"]["warmup"] == 0.0


def test_a_paper_trains_as_it_did(command, text) -> None:
    asked = ("palm", "--data", text, "--tokens", "2k", *SMALL, "--settings", "paper")
    answer = command("train", *asked, "--out", "a", "--json")
    settings = answer.json["settings"]
    assert (settings["optimiser"], settings["schedule"], settings["learning_rate"]) == ("adafactor", "rsqrt", 0.01)
    assert (settings["weight_decay"], settings["z_loss"], settings["warmup"]) == (1.0, 1e-4, 0.0)
    assert settings["ramp"] == [[0.25, 50 / 255], [0.5, 115 / 255]]
    assert answer.json["result"]["horizons"]["1.0"]["tokens"] == pytest.approx(2000, abs=64)
    said = " ".join(answer.err.split())
    assert "1, 2, then 4 x 16" in said
    assert "palm's paper's" in said
    assert "optimiser adafactor instead of the common adamw" in said
    assert "ramp 0.25 until 0.196, 0.5 until 0.451 instead of the common none" in said
    softer = command("train", *asked, "--out", "b", "--lr", "5e-3", "--batch-ramp", "2:0.5", "--json").json["settings"]
    assert (softer["learning_rate"], softer["ramp"]) == (5e-3, [[0.5, 0.5]])
    contrary = command("train", *asked, "--out", "c", "--schedule", "cosine")
    assert contrary.code == 2
    assert "--schedule cosine contradicts --settings paper, in which palm has rsqrt" in contrary.error


@pytest.mark.parametrize("recipe", ["gpt3", "ngpt", "diff_transformer"])
def test_every_paper_makes_a_run(command, text, recipe: str) -> None:
    answer = command(
        "train", recipe, "--data", text, "--tokens", "2k", *SMALL, "--settings", "paper", "--out", "a", "--json"
    )
    published = recipes.paper(recipe)
    assert published is not None
    assert {name: answer.json["settings"][name] for name in published.settings} == dict(published.settings)


def test_data_is_passed_over_when_told_so(command, text, tmp_path) -> None:
    asked = ("train", "llama", "--data", text, "--tokens", "1k", *SMALL)
    answer = command(*asked, "--skip", "3:5", "--skip", "9:10", "--out", "a", "--json").json
    assert answer["settings"]["skips"] == [[3, 5], [9, 10]]
    assert answer["settings"]["spikes"]["kind"] == "Spikes"
    assert answer["result"]["skipped_steps"] == 3
    assert answer["result"]["rewinds"] == []
    plain = command(*asked, "--no-spikes", "--out", "b", "--json").json
    assert plain["settings"]["spikes"] is None
    assert plain["loss"] != answer["loss"]
    finished = command(*asked, "--skip", "4:6", "--out", "a", "--resume")
    assert finished.code == 2
    assert "settings.skips" in finished.error


def test_any_recipe_takes_any_optimiser(command, text) -> None:
    asked = ("train", "llama", "--data", text, "--tokens", "1k", *SMALL, "--json")
    for name in ("muon", "sgd"):
        settings = command(*asked, "--optimiser", name, "--schedule", "rsqrt", "--out", name).json["settings"]
        assert (settings["optimiser"], settings["schedule"]) == (name, "rsqrt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tokens", "20M"), "epochs of"),
        (("--tokens", "10"), "tokens is 10; it must be at least one step of 64"),
        (("--lr", "-1"), "learning_rate is -1.0"),
        (("--schedule", "linear"), "schedule: expected 'wsd' or 'cosine' or 'rsqrt', got 'linear'"),
        (("--settings", "their"), "--settings: own, common or paper, got 'their'"),
        (("--settings", "paper"), "--settings paper: llama says nothing of its paper's training; gpt3,"),
        (("--optimiser", "adafacter"), "optimiser is 'adafacter'; it must be a known one; did you mean adafactor"),
        (("--schedule", "cosine", "--cooldown", "0.1"), "cooldown is 0.1; it must be left at 0.2"),
        (("--batch-ramp", "2 then 4"), "--batch-ramp: expected stages of sequences:share, such as 4:0.2,8:0.45"),
        (("--batch-ramp", "8:0.5"), "ramp is ((2.0, 0.5),); it must be shares below 1"),
        (("--z-loss", "-1"), "z_loss is -1.0"),
        (("--skip", "3-5"), "--skip: expected two steps as FROM:TO, such as 1000:1300, got '3-5'"),
        (("--skip", "5:3"), "skips is ((5, 3),); it must be pairs"),
        (("--skip", "16:18"), "skips is ((16, 18),); it must be of steps before the last, 16"),
        (("--device", "abacus"), "device is 'abacus'"),
        (("--dtype", "int8"), "got 'int8'"),
        (("--threads", "0"), "threads is 0"),
        (("--set", "heads=3"), "heads is given twice"),
        (("--vocab", "bytes", "--tokenizer", "tok"), "--vocab bytes and --tokenizer tok: give one of the two"),
        (("--vocab", "100"), "vocab must be at least 288"),
        (("--vocab", "50k"), "vocab 50000 is more than this corpus can fill; the largest possible is"),
        (("--tokenizer", "nowhere"), "tokenizer nowhere does not exist"),
        (("--context", "60k", "--tokens", "1M"), "training tokens; context 60000 needs at least"),
    ],
)
def test_bad_requests_leave_no_folder(command, text, tmp_path, arguments: tuple[str, ...], said: str) -> None:
    answer = command("train", "llama", "--data", text, "--tokens", "1k", *SMALL, "--out", "a", *arguments)
    assert answer.code == 2
    assert said in answer.error
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "data empty.txt is empty"),
        ("binary.bin", bytes(range(256)) * 64, "binary.bin is binary, not text"),
        ("latin.txt", "caf\xe9 ".encode("latin-1") * 100, "latin.txt is not UTF-8 text: byte 0xe9 at offset 3"),
        ("rows.jsonl", b'{"body": "x"}\n' * 20, "'text'"),
        ("cut.jsonl.gz", b"\x1f\x8b\x08\x00", "cut.jsonl.gz:1 cannot be read: not a whole gzip file"),
        ("not.parquet", b"PAR1", "not.parquet is not a readable Parquet file"),
    ],
)
def test_data_that_is_no_text_is_refused(command, tmp_path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    answer = command("train", "llama", "--data", name, "--tokens", "1k", *SMALL, "--out", "a")
    assert answer.code == 2
    assert said in answer.error
    assert not (tmp_path / "a").exists()


def test_folders_in_use_are_refused(command, text, tmp_path) -> None:
    def train(*more: str):
        return command("train", "llama", "--data", text, "--tokens", "1k", *SMALL, *more)

    assert train("--out", "a").code == 0
    assert "a: already holds a run; go on with it by --resume" in train("--out", "a").error
    changed = train("--out", "a", "--resume", "--lr", "0.5")
    assert changed.code == 2
    assert re.search(r"settings.learning_rate was [0-9.]+, now 0.5", changed.error)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    assert "other: holds thesis.tex but no run" in train("--out", "other").error
    assert [path.name for path in (tmp_path / "other").iterdir() if path.name != "lock"] == ["thesis.tex"]


def test_damage_is_named(command, text, tmp_path) -> None:
    def train(*more: str):
        return command("train", "llama", "--data", text, "--tokens", "1k", *SMALL, *more)

    assert train("--out", "a").code == 0
    shard = next((tmp_path / "cache").glob("*/train-tokens.bin"))
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    answer = train("--out", "b")
    assert answer.code == 2
    assert "train-tokens.bin is damaged" in answer.error
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_and_goes_on(program, command, text, tmp_path, number: signal.Signals) -> None:
    arguments = ("train", "llama", "--data", text, "--tokens", "30k", *SMALL, "--out", "a")
    process = program(*arguments)
    _wait_for(tmp_path / "a" / "metrics.jsonl", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    line = err.splitlines()[-1]
    assert f"stopped by {number.name} at step" in line
    assert line.endswith("--out a --resume")
    assert "Traceback" not in err
    assert list((tmp_path / "a" / "checkpoints").glob("step-*/checkpoint.json"))
    assert not (tmp_path / "a" / "result.json").exists()
    if number == signal.SIGTERM:
        answer = command(*arguments, "--resume", "--json")
        assert answer.code == 0
        assert answer.json["result"]["horizons"]["1.0"]["steps"] == round(30_000 / 64)


def _wait_for(path: Path, process) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
