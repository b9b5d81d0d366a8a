"""`windtunnel evaluate`, from a training run to a page."""

import json
from pathlib import Path

SMALL = ("--set", "layers=1", "--set", "width=16", "--set", "heads=2", "--context", 16, "--vocab", "bytes")


def trained(command, text, out, *options):
    common = ("--data", text, "--tokens", 256, "--batch", 4, "--evaluation-tokens", 800, "--threads", 1)
    done = command("train", "llama", *common, *SMALL, "--out", out, *options)
    assert done.code == 0, done.err


def test_a_run_is_asked_about_its_held_out_text(command, text):
    trained(command, text, "run")
    answer = command("evaluate", "run", "--tasks", "loss:most=800", "--threads", 1, "--out", "page", "--json")
    assert answer.code == 0, answer.err
    (task,) = answer.json["tasks"]
    result = json.loads(Path("run/result.json").read_text())["horizons"]["1.0"]
    assert abs(task["arms"][0]["loss"]["value"] - result["loss"]) < 1e-6
    assert (task["task"], round(task["chance"], 3)) == ("loss", 5.549)
    kept = json.loads(Path("page/evaluation.json").read_text())
    assert kept["tasks"] == answer.json["tasks"]
    assert "windtunnel evaluate" in Path("page/evaluation.html").read_text()
    plain = command("evaluate", "run", "--tasks", "loss:most=800", "--threads", 1)
    assert f"{result['loss']:.3f}" in plain.out


def test_what_cannot_be_compared_is_refused(command, text):
    trained(command, text, "run")
    assert "leave it out" in command("evaluate", "run", "--data", text).error
    assert "named twice" in command("evaluate", "run", "run").error
    done = command(
        "train",
        "llama",
        "--task",
        "mqar:pairs=2,length=16,vocab=32",
        "--tokens",
        64,
        "--batch",
        4,
        "--set",
        "layers=1",
        "--set",
        "width=16",
        "--set",
        "heads=2",
        "--items",
        8,
        "--out",
        "task",
    )
    assert done.code == 0, done.err
    assert "it was trained on a task" in command("evaluate", "task").error
    record = json.loads(Path("run/run.json").read_text())
    record["data"]["id"] = "gone"
    Path("run/run.json").write_text(json.dumps(record))
    assert "name a text by --data" in command("evaluate", "run").error
    Path("other.txt").write_text("another text altogether\n" * 40)
    answer = command("evaluate", "run", "--tasks", "loss", "--data", "other.txt", "--json", "--threads", 1)
    assert answer.json["text"]["name"] == "other.txt"
    Path("empty.txt").write_text("")
    assert "empty" in command("evaluate", "run", "--data", "empty.txt").error
