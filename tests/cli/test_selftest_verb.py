"""`windtunnel selftest`."""

from windtunnel.selftest import CHECKS, Check, Outcome


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
