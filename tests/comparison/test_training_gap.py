"""Held-out loss against the loss of the batches just before: from a run's rows, to a caveat where arms differ."""

import copy
import json
from dataclasses import replace

import pytest

from windtunnel.comparison.caveats import caveats
from windtunnel.comparison.engine import run_study
from windtunnel.comparison.report import render_report
from windtunnel.comparison.request import plan_study
from windtunnel.comparison.within import end_of_training
from windtunnel.selftest.small import request, written


def rows(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def row(horizon, tokens, loss):
    return {"step": tokens, "horizon": horizon, "tokens": tokens, "loss": loss, "lr": 0.1}


def test_the_branch_of_a_horizon_counts_and_not_the_trunk_that_went_on(tmp_path):
    branch = [row(0.5, tokens, tokens / 1000) for tokens in range(410, 501, 10)]
    trunk = [row(None, tokens, 9.0) for tokens in range(10, 801, 10)]
    scored = {"step": 500, "horizon": 0.5, "tokens": 500, "evaluation_loss": 7.0}
    path = rows(tmp_path / "metrics.jsonl", *trunk[:40], *branch, scored, *trunk[40:])
    assert end_of_training(path, 0.5) == pytest.approx((0.48 + 0.49 + 0.50) / 3)  # tokens above 475


def test_without_a_branch_the_trunk_is_the_line_and_without_rows_there_is_nothing(tmp_path):
    path = rows(tmp_path / "metrics.jsonl", *(row(None, tokens, 2.0) for tokens in (90, 100)))
    assert end_of_training(path, 1.0) == 2.0
    assert end_of_training(rows(tmp_path / "empty.jsonl"), 1.0) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    corpus, folder = written(tmp_path_factory.mktemp("corpus")), tmp_path_factory.mktemp("study") / "first"
    study = plan_study(request(corpus, folder, "llama", "palm"))
    return folder, study, run_study(study, folder, workers=2)


def test_a_study_reports_the_gap_of_every_arm(finished):
    folder, study, results = finished
    for label in ("llama", "palm"):
        logged = [
            json.loads(line) for line in (folder / "runs" / label / "seed-1" / "metrics.jsonl").read_text().splitlines()
        ]
        key = float(study.horizon_key(1.0))
        ends = [one for one in logged if one["horizon"] == key and "lr" in one]
        last = [one["loss"] for one in ends if one["tokens"] > 0.95 * ends[-1]["tokens"]]
        arm = results["arms"][label]
        assert arm["training_gap"]["seeds"][0] == pytest.approx(arm["loss"]["seeds"][0] - sum(last) / len(last))
    assert "gap to training" in render_report(results)


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        ([0.31, 0.30], "farther from its training loss than llama's, by 0.2050 nats ["),
        ([-0.11, -0.10], "nearer to its training loss than llama's, by 0.2050 nats ["),
        ([0.31, -0.20], None),
    ],
)
def test_an_arm_whose_gap_differs_is_named(finished, gap, said):
    _, study, results = finished
    several = copy.deepcopy(results)
    for label, seeds in (("llama", [0.1, 0.1]), ("palm", gap)):
        several["arms"][label]["training_gap"] = {"seeds": seeds}

    def named(epochs):
        again = replace(study, data={**study.data, "epochs": epochs})
        return [text for text in caveats(again, several) if "its training loss than" in text]

    assert len(named(2.5)) == (said is not None)
    assert all(text.startswith("palm: ") and said in text for text in named(2.5))
    assert not named(0.5)
