"""`windtunnel selftest`."""

import json

import pytest

from windtunnel.selftest import CHECKS, Check, Outcome, studies
from windtunnel.selftest.small import request, written


def test_named_checks_and_their_figures(command) -> None:
    answer = command("selftest", "speculation", "bits-per-byte", "--json")
    assert answer.code == 0, answer.err
    assert list(answer.json["checks"]) == ["speculation", "bits-per-byte"]
    assert all(each["passed"] for each in answer.json["checks"].values())
    assert "pass" in command("selftest", "bits-per-byte").out


def test_a_failure_is_exit_code_1(command, monkeypatch) -> None:
    fails = Check(name="fails", number=1, title="t", run=lambda lab: Outcome(False, "did not hold"))
    monkeypatch.setattr("windtunnel.selftest.CHECKS", (*CHECKS, fails))
    answer = command("selftest", "fails")
    assert answer.code == 1
    assert "did not hold" in answer.out


def test_what_cannot_be_asked_is_refused(command) -> None:
    for arguments, words in ((("--all",), "--out FOLDER"), (("ordr",), "order")):
        answer = command("selftest", *arguments)
        assert answer.code == 2
        assert words in answer.error


@pytest.mark.slow
def test_the_controls_are_a_study_that_is_kept_and_gone_on_with(command, monkeypatch, tmp_path):
    """As small as a study can be: what its verdicts are is not asked here."""
    corpus, plan = written(tmp_path / "corpus"), studies.plan_study

    def small(asked):
        assert (asked.arms, asked.preset) == (studies.ARMS, "quick")
        return plan(request(corpus, asked.out, *asked.arms, seeds=2, trials=1, blocks=1))

    monkeypatch.setattr(studies, "plan_study", small)
    answer = command("selftest", "controls", "--out", "kept", "--json")
    found = answer.json["checks"]["controls"]
    assert answer.code == (0 if found["passed"] else 1), answer.err
    assert set(found["figures"]) == {"same", "hot", "more"}
    results = json.loads((tmp_path / "kept/controls/study/results.json").read_text())
    assert found == {**found, **_judged(results)}
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept/controls/study").rglob("run.json")}
    assert len(runs) >= 2 * len(studies.ARMS)
    assert command("selftest", "controls", "--out", "kept", "--json").json["checks"]["controls"] == found
    assert {path: path.stat().st_mtime_ns for path in runs} == runs


def _judged(results):
    outcome = studies.judge_controls(results)
    return {"passed": outcome.passed, "shown": outcome.shown, "figures": outcome.figures}
