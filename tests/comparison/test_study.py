"""A whole study, small: what it leaves, that its files alone give the results, and that a kill costs nothing."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from windtunnel.checkpoint import read_json
from windtunnel.comparison import asking
from windtunnel.comparison.engine import run_study
from windtunnel.comparison.report import render_report
from windtunnel.comparison.request import plan_study
from windtunnel.comparison.results import assemble, build_results, read_files, weaker
from windtunnel.comparison.study import load_study, study_from
from windtunnel.errors import InputError, WorkError
from windtunnel.evaluation.registry import parse_evaluations
from windtunnel.selftest.small import SIZES, request, written


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return written(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "first"
    arms = ("llama", "ngpt", "again=llama:seed_offset=100", "tests.comparison.own_lab:broken")
    study = plan_study(request(corpus, folder, *arms))
    return folder, study, run_study(study, folder, workers=2)


@pytest.fixture
def questioned(finished, tmp_path):
    """A copy of the finished study whose runs were asked."""
    folder, study, _ = finished
    shutil.copytree(folder, tmp_path / "study")
    asked = parse_evaluations(f"loss:most={SIZES['evaluation_tokens']},decoding:steps=4")
    asking.ask(study, tmp_path / "study", asked, torch.device("cpu"))
    return tmp_path / "study", study


def test_answers_of_a_studys_runs_stand_in_its_report(questioned):
    folder, study = questioned
    results = assemble(folder, ("tests",))
    loss, decoding = results["evaluations"]
    assert [arm["label"] for arm in loss["arms"]] == ["llama", "ngpt", "again"]
    assert loss["arms"][1]["loss"]["value"] == pytest.approx(results["arms"]["ngpt"]["loss"]["mean"], abs=1e-5)
    assert loss["arms"][1]["loss"]["over"] == "seeds"
    assert decoding["arms"][0]["state_bytes"] == results["arms"]["llama"]["state_bytes"][str(study.design.context)]
    shown = render_report(results)
    assert 'id="asked-loss"' in shown
    assert 'id="asked-decoding"' in shown
    ids = re.findall(r' id="([^"]+)"', shown)
    assert len(ids) == len(set(ids))


def test_other_questions_are_put_beside_the_first(questioned):
    folder, study = questioned
    asking.ask(study, folder, parse_evaluations("positions,loss:most=200"), torch.device("cpu"))
    found = assemble(folder, ("tests",))["evaluations"]
    assert [task["task"] for task in found] == ["loss", "decoding", "positions"]
    assert found[0]["settings"]["most"] == 200


@pytest.mark.parametrize(
    ("arms", "changes", "asked", "said"),
    [
        (("llama", "gpt3"), {}, "length:longest=2", "its positions end at"),
        (("llama", "gpt3"), {}, "needle:longest=8", "longest is 8 tokens, and the shortest item has"),
        (
            ("llama", "gpt3"),
            {"data": None, "evaluation_tokens": None, "task": "state_tracking:length=16"},
            "loss",
            "read no text",
        ),
    ],
)
def test_what_an_arm_cannot_be_asked_is_refused_before_training(corpus, tmp_path, arms, changes, asked, said):
    study = plan_study(request(corpus, tmp_path / "never", *arms, **changes))
    with pytest.raises(InputError, match=said):
        asking.check_questions(study, tmp_path / "never", parse_evaluations(asked))
    assert not (tmp_path / "never").exists()


def test_planning_writes_nothing(corpus, tmp_path):
    plan_study(request(corpus, tmp_path / "never", "llama", "palm"))
    assert not (tmp_path / "never").exists()


def test_results_have_the_names_that_others_read(finished):
    _, _, results = finished
    assert {"study", "preset", "baseline", "data", "arms", "comparisons"} <= set(results)
    arm = results["arms"]["ngpt"]
    names = {"n_body", "param_gap", "flops_per_token", "tokens_per_second", "lr", "lr_at_edge", "loss", "bits_per_byte"}
    assert names | {"state_bytes", "batch_hash"} <= set(arm)
    assert set(arm["loss"]) >= {"mean", "ci95", "seeds"}
    assert len(arm["loss"]["seeds"]) == 3
    assert "1024" in arm["state_bytes"]
    row = next(one for one in results["comparisons"] if one["variant"] == "ngpt")
    names = {"variant", "baseline", "delta_nats", "ci95", "n", "s_tok", "s_flop", "s_time", "verdict", "grade"}
    assert names <= set(row)
    assert set(row["s_tok"]) >= {"value", "ci95", "censored"}
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize(("below", "weak"), [(0.5, True), (-0.5, False)])
def test_a_baseline_above_the_registered_loss_caps_every_verdict(finished, below, weak):
    folder, study, results = finished
    reached = results["arms"]["llama"]["loss"]["mean"]
    asked = dataclasses.replace(study, reference=reached - below)
    assert asked.id != study.id
    assert study_from(
        json.loads(json.dumps({**read_json(folder / "study.json"), "question": asked.question()})), ()
    ).reference
    again = build_results(dataclasses.replace(read_files(folder), study=asked))
    caps = [" ".join(one["caps"]) for one in again["comparisons"]]
    assert ["weaker than the registered reference" in text for text in caps] == [weak] * len(caps)
    row = next(row for row in again["held_equal"] if row["what"] == "strength of the baseline")
    assert row["evidence"] == f"{reached:.4f}"


@pytest.mark.parametrize(
    ("interval", "reference", "weak"),
    [([3.0, 3.2], 3.05, False), ([3.0, 3.2], 2.99, True), ([None, None], 3.05, True), ([3.0, 3.2], None, False)],
)
def test_a_baseline_is_weak_when_it_is_surely_worse(interval, reference, weak):
    assert weaker({"mean": 3.1, "ci95": interval}, reference) == weak


def test_the_data_order_is_the_same_in_every_arm_and_recorded(finished):
    _, _, results = finished
    assert results["arms"]["ngpt"]["batch_hash"] == results["arms"]["llama"]["batch_hash"]
    assert results["arms"]["again"]["batch_hash"] != results["arms"]["llama"]["batch_hash"]
    order = next(row for row in results["held_equal"] if row["what"].startswith("training tokens"))
    assert "DIFFERENT" not in order["rule"]


def test_a_failed_arm_is_reported_and_the_others_go_on(finished):
    _, _, results = finished
    assert "broken" not in results["arms"]
    assert any(failure["arm"] == "broken" and "does not work" in failure["error"] for failure in results["failures"])
    assert any("broken" in caveat for caveat in results["caveats"])


def test_tuning_seeds_are_never_reported(finished):
    folder, _, _ = finished
    assert sorted(path.name for path in (folder / "runs" / "llama").iterdir()) == ["seed-1", "seed-2", "seed-3"]
    for path in (folder / "trials").rglob("run.json"):
        assert json.loads(path.read_text())["identity"]["settings"]["seed"] == 0


def test_files_alone_give_the_same_bytes(finished):
    folder, _, _ = finished
    before = (folder / "results.json").read_bytes()
    assemble(folder, ("tests",))
    assert (folder / "results.json").read_bytes() == before


def test_a_finished_study_given_again_trains_nothing(finished):
    folder, study, results = finished
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert figures(run_study(study, folder, workers=1)) == figures(results)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")} == stamps


def test_another_question_in_the_same_folder_is_refused(finished, corpus):
    folder, _, _ = finished
    with pytest.raises(InputError, match=r"another study .*design\.tokens"):
        plan_study(request(corpus, folder, "llama", "ngpt", tokens=16 * 512))


def test_a_result_brought_from_another_study_is_refused(finished, tmp_path):
    folder, study, _ = finished
    shutil.copytree(folder, tmp_path / "study")
    arm = tmp_path / "study" / "runs" / "llama"
    shutil.rmtree(arm / "seed-1")
    shutil.copytree(arm / "seed-2", arm / "seed-1")
    record = json.loads((arm / "seed-1" / "run.json").read_text())
    record["data"]["fingerprint"] = "of another text"
    (arm / "seed-1" / "run.json").write_text(json.dumps(record))
    words = r"seed-1: holds the result of another study: settings\.seed is 2 there and 1 here.*'of another text' there"
    with pytest.raises(InputError, match=words):
        run_study(study, tmp_path / "study", workers=1)


def test_a_study_of_an_earlier_version_is_still_read(finished, tmp_path):
    """It named its shards by `dataset_folder`; its hash is the same."""
    folder, study, _ = finished
    record = json.loads((folder / "study.json").read_text())
    record["dataset_folder"] = record.pop("workload")["folder"]
    (tmp_path / "study.json").write_text(json.dumps(record))
    assert load_study(tmp_path, ("tests",))[0].id == study.id
    assert set(record["question"]["data"]) == {"fingerprint", "tokenizer_fingerprint", "vocab"}


def test_a_changed_question_is_noticed(finished, tmp_path):
    folder, _, _ = finished
    copy = tmp_path / "copy"
    copy.mkdir()
    record = json.loads((folder / "study.json").read_text())
    record["question"]["margin"] = 0.5
    (copy / "study.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="registered hash"):
        load_study(copy, ("tests",))


def test_a_folder_with_something_else_is_refused(corpus, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        plan_study(request(corpus, tmp_path, "llama", "palm"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "quik"}, "did you mean quick"),
        ({"tokens": 10**9}, "epochs"),
        ({"settings": {"width": 33}}, "width"),
        ({"settings": {"wdith": 32}}, "wdith"),
        ({"seeds": 0}, "seeds"),
        ({"vocab": 30_000}, "the largest possible is"),
        ({"primary": "speed"}, "primary"),
        ({"device": "tpu"}, "device"),
        ({"data": (Path("/nowhere/at/all.txt"),)}, "all.txt"),
    ],
)
def test_what_cannot_be_is_refused_before_work_starts(corpus, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        plan_study(request(corpus, tmp_path / "x", "llama", "palm", **changes))
    assert not (tmp_path / "x").exists()


def test_a_baseline_that_fails_ends_the_study_with_the_reason(corpus, tmp_path):
    arms = ("tests.comparison.own_lab:broken", "llama")
    study = plan_study(request(corpus, tmp_path / "x", *arms, baseline="broken", seeds=1, trials=1))
    with pytest.raises(WorkError, match="does not work"):
        run_study(study, tmp_path / "x", workers=1)


def figures(results):
    """What a kill must not change: everything but times."""
    arms = {
        label: {
            name: arm[name] for name in ("lr", "trials", "loss", "bits_per_byte", "horizons", "batch_hash", "curve")
        }
        for label, arm in results["arms"].items()
    }
    names = ("variant", "delta_nats", "ci95", "s_tok", "s_flop", "ci95_documents", "p_holm")
    return {"arms": arms, "comparisons": [{name: row[name] for name in names} for row in results["comparisons"]]}


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_gives_the_same_figures(corpus, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    subprocess.run(command(corpus, whole), check=True, stdout=subprocess.DEVNULL)
    kills, draw, lasts = 0, random.Random(0), time.monotonic() - began
    while not (killed / "results.json").exists():
        process = subprocess.Popen(command(corpus, killed), stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(timeout=draw.uniform(0.3, 0.6) * lasts if kills < 5 else None)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            time.sleep(0.2)
    assert kills > 0
    left, right = (json.loads((folder / "results.json").read_text()) for folder in (whole, killed))
    assert figures(left) == figures(right)
    shutil.rmtree(killed)


def command(corpus, out):
    options = [
        "--preset",
        "smoke",
        "--tokens",
        "16k",
        "--seeds",
        "2",
        "--evaluation-tokens",
        "2k",
        "--data",
        str(corpus),
    ]
    return [sys.executable, "-m", "windtunnel", "compare", "llama", "palm", *options, "--out", str(out)]
