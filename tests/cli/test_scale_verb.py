"""`windtunnel scale`, and `report` and `fit` on its folder."""

import re

import pytest

from tests.comparison.simulated_pool import SimulatedPool
from windtunnel.claims import Filed
from windtunnel.claims.ladders import held_out_error, saving
from windtunnel.cli import ladders
from windtunnel.comparison.ladders import bill
from windtunnel.comparison.ladders.engine import run_folder
from windtunnel.comparison.ladders.request import LadderRequest, plan_ladder

RATES = {"llama": (1.2e-2, -0.2, -0.1), "ngpt": (2e-2, -0.3, 0.1)}
SMALL = ("--context", "32", "--batch", "8", "--evaluation-tokens", "2048", "--max-epochs", "1000", "--preset", "pilot")


@pytest.fixture
def pool(monkeypatch):
    """Jobs whose losses follow a law, and rates that are not measured."""
    made = SimulatedPool(RATES, sigma=0.001, saved=1.4)
    monkeypatch.setattr(ladders, "local_pool", lambda *given: made)
    monkeypatch.setattr(bill, "seconds_a_step", lambda *given: 0.01)
    return made


@pytest.fixture
def scale(command, text, tmp_path):
    def run(*words):
        return command("scale", "llama", "ngpt", "--data", text, "--out", tmp_path / "ladder", *SMALL, *words)

    return run


@pytest.mark.slow
def test_a_ladder_from_question_to_page(scale, pool, command, tmp_path):
    answer = scale("--budgets", "1e11:1.6e12")
    assert answer.code == 0, answer.err
    for words in ("the bill:", "training FLOPs", "Compute multiplier", "Budgets", "report.html"):
        assert words in answer.out
    page = (tmp_path / "ladder" / "report.html").read_text()
    assert not re.search(r"(?:src|href)=\"https?:", page)
    for words in ("Pareto frontiers", "Every rung", "The rule of each arm", "dashed: beyond the runs, by 4x at most"):
        assert words in page
    assert "windtunnel ablate ngpt" in page
    fits = command("fit", tmp_path / "ladder", "--json").json
    assert fits["multipliers"]["ngpt"]["at"]["largest"]["value"] == pytest.approx(1.4, rel=0.05)
    again = command("report", tmp_path / "ladder", "--json")
    assert again.json["fits"]["arms"] == fits["arms"]
    filed = Filed("ladder.json", again.json)
    (saved,) = saving("ngpt", "llama")(filed)
    assert saved.value == pytest.approx(1.4, rel=0.05)
    assert saved.low < 1.4 < saved.high
    (error,) = held_out_error("llama")(filed)
    assert error.value < 0.02
    assert (tmp_path / "ladder" / "report.html").read_text() == page
    before = len(pool.names)
    assert scale("--budgets", "1e11:1.6e12", "--json").json["ladder"] == again.json["ladder"]
    assert len(pool.names) == before
    refused = scale("--budgets", "1e11:3.2e12")
    assert (refused.code, refused.out) == (2, "")
    assert "holds another ladder" in refused.err


def test_a_plan_trains_nothing(scale, pool, tmp_path):
    answer = scale("--budgets", "1e11:1.6e12", "--plan", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert len(found["rungs"]) == 2 * 4 * 5
    assert found["bill"]["expected_seconds"] > 0
    assert sum(found["bill"]["flops"].values()) > 40 * 1e11
    assert not pool.names
    assert not (tmp_path / "ladder").exists()


def test_what_is_done_is_not_left_to_do(pool, text, tmp_path):
    options = {"context": 32, "batch_size": 8, "evaluation_tokens": 2_048, "max_epochs": 1000.0, "preset": "pilot"}
    ladder = plan_ladder(LadderRequest(arms=("llama", "ngpt"), out=tmp_path / "ladder", data=(text,), **options))
    found = bill.estimate(ladder, 2)
    before = ladders._later(ladder, found, tmp_path)
    assert before["seeds"] == 0
    assert before["check"] == pytest.approx(1e3 * (found.seconds["runs"] + found.seconds["seeds"]))
    for rung in ladder.all_rungs():
        folder = run_folder(tmp_path, rung, 1)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
    assert ladders._later(ladder, found, tmp_path)["check"] == pytest.approx(1e3 * found.seconds["seeds"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budgets", "1e11:1.5e12"), "at least 16x is needed for a fit: end at 1.6e+12"),
        (("--budgets", "much"), "such as 1e12,4e12"),
        (("--sizes", "3"), "at least 5 are needed"),
        (("--set", "width=64"), "a ladder plans its own sizes"),
    ],
)
def test_one_line_before_any_work(scale, tmp_path, words, message):
    answer = scale(*words)
    assert answer.code == 2
    assert message in " ".join(answer.err.replace("│", " ").split())
    assert not (tmp_path / "ladder").exists()
