"""Looks: seeds are doubled while a verdict is open, and all looks together stay at five in a hundred."""

import json

import numpy as np
import pytest

from windtunnel.comparison import engine
from windtunnel.comparison.engine import run_study
from windtunnel.comparison.looks import SHARES, seeds_at, undecided
from windtunnel.comparison.pool import Outcome
from windtunnel.comparison.request import plan_study
from windtunnel.comparison.results import assemble
from windtunnel.errors import InputError
from windtunnel.selftest.small import request, written
from windtunnel.statistics import paired_multiplier


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return written(tmp_path_factory.mktemp("corpus"))


def planned(corpus, folder, **changes):
    return plan_study(request(corpus, folder, "llama", "ngpt", **{"looks": 3, "seeds": 3, **changes}))


class Quick:
    """A pool whose runs all end at once."""

    workers = 1

    def __init__(self):
        self.names = []

    def prepare(self, *_):
        pass

    def run(self, jobs, tick):
        for job in jobs:
            self.names.append(job.name)
            yield Outcome(job, {"horizons": {"1.0": {"loss": 3.0}}, "initial_loss": 7.0, "diverged": False})

    def seeds(self, arm):
        return sorted(int(name.split("seed-")[1]) for name in self.names if f"runs/{arm}/" in name)


def answered(*words, control=False):
    """Results of which these are what the intervals say of variants."""
    labels = [f"v{k}" for k, _ in enumerate(words)]
    comparisons = [{"variant": label, "uncapped": word} for label, word in zip(labels, words, strict=True)]
    return {"comparisons": comparisons, "arms": {label: {"control": control} for label in labels}}


@pytest.mark.parametrize(
    ("answers", "seeds"),
    [
        ([answered("wins", "equivalent")], 3),
        ([answered("wins", "inconclusive"), answered("loses", "wins")], 6),
        ([answered("inconclusive")] * 3, 12),
        ([answered("inconclusive", control=True)], 3),
    ],
)
def test_seeds_are_doubled_while_a_verdict_is_open(corpus, tmp_path, monkeypatch, answers, seeds):
    left = list(answers)
    monkeypatch.setattr(engine, "assemble", lambda folder: left.pop(0))
    pool = Quick()
    assert run_study(planned(corpus, tmp_path / "study"), tmp_path / "study", pool=pool) is answers[-1]
    assert not left
    assert set(pool.seeds("llama")) == set(pool.seeds("ngpt")) == set(range(1, seeds + 1))


def test_a_second_look_stands_in_the_folder_and_in_the_results(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    monkeypatch.setattr(engine, "undecided", lambda results: True)
    study = planned(corpus, folder, looks=2)
    results = run_study(study, folder, workers=2)
    assert results["settings"]["seeds"] == [1, 2, 3, 4, 5, 6]
    assert len(results["arms"]["ngpt"]["loss"]["seeds"]) == results["comparisons"][0]["n"] == 6
    row = next(row for row in results["held_equal"] if row["what"] == "looks")
    assert row["evidence"] == "look 2: 6 seeds, alpha 0.03"
    assert json.dumps(assemble(folder), sort_keys=True) == json.dumps(results, sort_keys=True)
    one = results["comparisons"][0]
    wide, plain = one["ci95_simultaneous"], one["ci95"]
    factor = paired_multiplier(6, 0.97) / paired_multiplier(6)
    assert wide[1] - wide[0] == pytest.approx(factor * (plain[1] - plain[0]))


@pytest.mark.parametrize("looks", SHARES)
def test_all_looks_together_stay_below_five_in_a_hundred(looks):
    assert sum(SHARES[looks]) == pytest.approx(0.05)
    draws = np.random.default_rng(3).standard_normal((20_000, seeds_at(3, looks)))  # no difference at all
    called = np.zeros(len(draws), bool)
    naive = np.zeros(len(draws), bool)
    for look, share in enumerate(SHARES[looks], 1):
        seen = draws[:, : seeds_at(3, look)]
        far = np.abs(seen.mean(axis=1)) / seen.std(axis=1, ddof=1)
        called |= far > paired_multiplier(seen.shape[1], 1 - share)
        naive |= far > paired_multiplier(seen.shape[1], 0.95)
    assert called.mean() < 0.053
    assert looks == 1 or naive.mean() > 0.08


def test_undecided_is_what_the_intervals_leave_open():
    assert undecided(answered("wins", "inconclusive"))
    assert not undecided(answered("mixed", "loses, small"))


@pytest.mark.parametrize(
    ("changes", "said"), [({"looks": 4}, "looks: 4 given; 1, 2 or 3"), ({"seeds": 2}, "2 seeds decide nothing")]
)
def test_looks_that_cannot_be_are_refused(corpus, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        planned(corpus, tmp_path / "x", **changes)


def test_a_study_of_one_look_asks_the_same_question_as_ever(corpus, tmp_path):
    assert "looks" not in planned(corpus, tmp_path / "x", looks=1).question()
    assert planned(corpus, tmp_path / "x").id != planned(corpus, tmp_path / "x", looks=1).id
