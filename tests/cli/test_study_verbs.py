"""`compare` and `report`: what is refused before any work, and one smallest study from end to end."""

import json
import re
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["llama"], "a comparison needs a baseline and at least one variant"),
        (["llama", "lama"], "unknown recipe 'lama'; did you mean llama"),
        (["llama", "palm:paralel=false"], "has no setting 'paralel'; did you mean parallel"),
        (["llama", "palm:parallel"], "'parallel'"),
        (["llama", "llama"], "arm 'llama' is there 2 times"),
        (["llama", "palm", "--baseline", "gpt3"], "baseline: 'gpt3' is not among the arms"),
        (["llama", "palm", "--preset", "quik"], "preset: unknown preset 'quik'; did you mean quick"),
        (["llama", "palm", "--set", "laers=2"], "'laers'; did you mean layers"),
        (["llama", "palm", "--set", "heads=7"], "heads 7 does not divide width 32"),
        (["llama", "palm", "--tokens", "20M"], "epochs of"),
        (["llama", "palm", "--seeds", "0"], "seeds: 0 given"),
        (["llama", "palm", "--reference", "0"], "reference: 0.0 given; a held-out loss in nats a token"),
        (["llama", "palm", "--primary", "iso_luck"], "primary: 'iso_luck'"),
        (["llama", "palm", "--device", "abacus"], "device is 'abacus'"),
        (["llama", "palm", "--out", "taken"], "taken: is not empty and holds no study"),
    ],
)
def test_bad_questions_are_refused(command, text, tmp_path, arguments: list[str], said: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    preset = [] if "--preset" in arguments else ["--preset", "smoke"]
    out = [] if "--out" in arguments else ["--out", "study"]
    answer = command("compare", *arguments, *preset, *out, "--data", text)
    assert answer.code == 2
    assert said in answer.error
    assert not (tmp_path / "study").exists()
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]


def test_a_study_from_question_to_report(program, command, text, tmp_path) -> None:
    arguments = ["compare", "llama", "small=llama:tied=true", "--preset", "smoke", "--data", text, "--out", "study"]
    arguments += ["--tokens", "4k", "--trials", "3", "--evaluation-tokens", "1k", "--workers", "1"]
    arguments += ["--set", "layers=1", "--set", "width=16", "--context", "32"]
    process = program(*arguments, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    results = json.loads(out)
    assert set(results["arms"]) == {"llama", "small"}
    assert re.search(r"about \d+ (s|min|h)", err)
    assert "Traceback" not in err
    assert (tmp_path / "study" / "report.html").is_file()
    assert results["report"].endswith("report.html")

    again = command("report", "study", "--out", "page.html")
    assert again.code == 0, again.err
    assert "llama" in again.out
    assert "small" in again.out
    assert (tmp_path / "page.html").read_text() == (tmp_path / "study" / "report.html").read_text()
    stored = command("report", "study", "--json").json
    assert stored["comparisons"] == results["comparisons"]
    other = command(*arguments, "--seeds", "2")
    assert other.code == 2
    assert "holds another study" in other.error


@pytest.mark.slow
def test_a_plan_shows_arms_and_bill_and_trains_nothing(command, text, tmp_path) -> None:
    arguments = ["compare", "llama", "ngpt", "twice=llama:lr_factor=2", "--preset", "smoke", "--data", text]
    arguments += ["--tokens", "4k", "--evaluation-tokens", "1k", "--workers", "1", "--out", "study", "--plan"]
    planned = command(*arguments, "--json").json
    assert [arm["label"] for arm in planned["arms"]] == ["llama", "ngpt", "twice"]
    assert abs(planned["arms"][1]["gap"]) < 0.02
    assert planned["tokens"]["llama"] == planned["tokens"]["ngpt"]
    assert planned["tokens"]["twice"] < planned["tokens"]["llama"]  # a control has no trials of its own
    assert planned["seconds"] > 0
    answer = command(*arguments)
    assert answer.code == 0, answer.err
    assert "interrupted, the same command goes on" in answer.out
    assert not (tmp_path / "study").exists()


def test_a_study_is_asked_with_it_and_later(command, text, tmp_path) -> None:
    sizes = ("--set", "layers=1", "--set", "width=16", "--context", 32, "--vocab", "bytes", "--workers", 1)
    budget = ("--tokens", "2k", "--trials", 3, "--evaluation-tokens", "1k", "--preset", "smoke")
    words = ("compare", "llama", "small=llama:tied=true", "--data", text, *budget, *sizes, "--out", "study")
    answer = command(*words, "--evaluate", "loss,decoding:length=16,steps=2", "--json")
    assert answer.code == 0, answer.err
    told = {task["task"]: task for task in answer.json["evaluations"]}
    assert set(told) == {"loss", "decoding"}
    assert [arm["label"] for arm in told["loss"]["arms"]] == ["llama", "small"]
    page = (tmp_path / "study" / "report.html").read_text()
    assert "Loss on held-out text" in page
    assert "Loss by position" not in page

    later = command("evaluate", "study", "--tasks", "positions", "--threads", 1, "--out", "asked", "--json")
    assert later.code == 0, later.err
    assert [task["task"] for task in later.json["tasks"]] == ["positions"]
    assert {Path(file).name for file in later.json["files"]} >= {"report.html", "evaluation.json", "evaluation.html"}
    kept = json.loads((tmp_path / "study" / "evaluation.json").read_text())["tasks"]
    assert [task["task"] for task in kept] == ["loss", "decoding", "positions"]
    assert kept[0]["arms"] == told["loss"]["arms"]
    assert "Loss by position" in (tmp_path / "study" / "report.html").read_text()
    assert "Loss by position" in (tmp_path / "asked" / "evaluation.html").read_text()
    plain = command("evaluate", "study", "--tasks", "loss", "--threads", 1)
    assert "Loss on held-out text" in plain.out
    assert "leave it out" in command("evaluate", "study", "--data", text).error


def test_a_folder_without_a_study_is_refused(command, tmp_path) -> None:
    answer = command("report", "nowhere")
    assert answer.code == 2
    assert "no study.json" in answer.error
    assert not (tmp_path / "nowhere").exists()
