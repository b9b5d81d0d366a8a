"""The quick self-tests hold here, a broken tool is found out, and the filed controls came out as they must.

Operations, states, causality and decoding are asked of every case in tests/ledger and tests/recipes, by the same
functions.
"""

import copy
import json
from pathlib import Path

import pytest
import torch

from windtunnel.comparison.speedup import Local
from windtunnel.data.sampler import Sampler
from windtunnel.errors import InputError
from windtunnel.recipes import names
from windtunnel.selftest import (
    CHECKS,
    Check,
    Lab,
    Outcome,
    causality,
    chosen,
    drafts,
    nulls,
    operations,
    order,
    run,
    simulated,
    table,
)
from windtunnel.selftest.check import worst
from windtunnel.selftest.studies import judge_controls
from windtunnel.selftest.tiny import tiny_model
from windtunnel.statistics import Interval

CONTROLS = Path(__file__).parents[2] / "benchmarks" / "results" / "2026-11-23-controls-results.json"
ELSEWHERE = ("operations", "sizes", "causality", "decoding")
SLOW = ("report",)
LAB = Lab(Path("unused"))


QUICK = [
    pytest.param(check, id=check.name, marks=[pytest.mark.slow] if check.name in SLOW else [])
    for check in CHECKS
    if not check.long and check.name not in ELSEWHERE
]


@pytest.mark.parametrize("check", QUICK)
def test_quick_checks_pass(check, tmp_path):
    outcome = check.run(Lab(tmp_path))
    assert outcome.passed, outcome.shown
    json.dumps(outcome.figures, allow_nan=False)


@pytest.mark.parametrize("check", [each for each in CHECKS if each.name in ELSEWHERE], ids=lambda each: each.name)
def test_checks_of_every_recipe_go_through_them(check, monkeypatch):
    monkeypatch.setattr("windtunnel.recipes.names", lambda: ["llama", "griffin"])
    outcome = check.run(LAB)
    assert outcome.passed, outcome.shown


@pytest.mark.parametrize("null", nulls.NULLS, ids=lambda null: null.name)
def test_ideas_turned_off_leave_the_baseline(null):
    assert nulls.difference(null, torch.float64) < 1e-12


def test_what_is_left_of_ngpt_and_of_differential_attention():
    assert nulls.ngpt_at_rate_zero(torch.float64) < 1e-12
    assert nulls.differential_at_zero(torch.float64) < 1e-12


def test_an_idea_that_is_not_off_is_seen():
    assert nulls.difference(nulls.Null("bigbird", {"block": 3}, "llama")) > nulls.ALLOWED


def test_every_number_of_the_protocol_has_a_check():
    assert {check.number for check in CHECKS} >= set(range(1, 11))
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_model_that_looks_ahead_fails(monkeypatch):
    model = tiny_model("llama", torch.float64)
    ahead = model.forward

    def forward(tokens, **given):
        out = ahead(tokens, **given)
        return out._replace(logits=out.logits + out.logits.mean(1, keepdim=True))

    monkeypatch.setattr(model, "forward", forward)
    monkeypatch.setattr(causality, "tiny_model", lambda *given: model)
    monkeypatch.setattr("windtunnel.recipes.names", lambda: ["llama"])
    assert not causality.later_tokens(LAB).passed
    assert not causality.decoding(LAB).passed


def test_a_ledger_that_is_off_by_one_in_a_thousand_fails(monkeypatch):
    real = operations.counted
    monkeypatch.setattr(operations, "counted", lambda work: 1.001 * real(work))
    monkeypatch.setattr("windtunnel.recipes.names", lambda: ["llama"])
    assert not operations.operations(LAB).passed


def test_a_state_that_is_larger_than_was_said_fails(monkeypatch):
    monkeypatch.setattr(operations, "held_bytes", lambda model, length: (length + 1, length))
    monkeypatch.setattr("windtunnel.recipes.names", lambda: ["llama"])
    assert not operations.sizes(LAB).passed


def test_intervals_that_are_too_narrow_fail(monkeypatch):
    narrow = Local.interval

    def half(self, level=0.95):
        found = narrow(self, level)
        return Interval(found.value, (found.value + found.low) / 2, (found.value + found.high) / 2)

    monkeypatch.setattr(Local, "interval", half)
    assert not simulated.positive_control(LAB).passed
    assert not simulated.coverage_of_studies(LAB).passed


def test_verdicts_that_are_too_eager_fail(monkeypatch):
    monkeypatch.setattr(simulated, "compare_arms", lambda *given: {"verdict": "wins"})
    assert not simulated.same_arm(LAB).passed
    assert not simulated.negative_control(LAB).passed


def test_a_sweep_that_stays_where_it_begins_fails(monkeypatch):
    stuck = simulated.choose([simulated.Trial(4.0, 3.0)], simulated.TuningRule(centre=4.0, initial_loss=9.0, points=1))
    monkeypatch.setattr(simulated, "swept", lambda wrong_by: stuck)
    assert not simulated.negative_control(LAB).passed


def test_drafts_that_change_the_law_fail(monkeypatch):
    monkeypatch.setattr(drafts, "residual", lambda p, q: p)
    assert not drafts.speculation(LAB).passed


def test_an_order_that_is_not_a_function_of_the_step_is_seen(monkeypatch, tmp_path):
    split = order.dataset(tmp_path, 16).train
    assert not order.cut_differs(split, 16, 3, 4, 1)
    count = iter(range(1, 100))
    monkeypatch.setattr(Sampler, "batch", lambda self, step, size, rows=slice(None): self.read(range(next(count), 100)))
    assert order.cut_differs(split, 16, 3, 4, 1)


def test_the_filed_controls_came_out_as_they_must():
    results = json.loads(CONTROLS.read_text())
    outcome = judge_controls(results)
    assert outcome.passed, outcome.shown
    for arm, change in (
        ("same", {"verdict": "wins"}),
        ("hot", {"verdict": "inconclusive"}),
        ("more", {"s_tok": {"value": 1.1, "ci95": [1.05, 1.15], "text": ""}}),
        ("more", {"s_tok": {"value": None, "ci95": [1.1, None], "text": ""}}),
    ):
        wrong = copy.deepcopy(results)
        next(one for one in wrong["comparisons"] if one["variant"] == arm).update(change)
        assert not judge_controls(wrong).passed


def test_the_worst_difference_is_named():
    outcome = worst({"one": 1e-9, "two": 3e-7}, 1e-8)
    assert not outcome.passed
    assert "3.0e-07 (two)" in outcome.shown
    assert worst({"one": 1e-9}, 1e-8).passed
    assert not worst({"one": 1e-9, "two": float("nan")}, 1e-8).passed


def broken(lab):
    raise ValueError("the wing came off")


def test_a_check_that_breaks_has_failed_and_the_next_is_made(tmp_path):
    made = []

    def works(lab):
        made.append(lab.folder)
        return Outcome(True, "held", {"figure": 1})

    checks = [
        Check(name="breaks", number=1, title="t", run=broken),
        Check(name="works", number=2, title="u", run=works),
    ]
    document = run(checks, tmp_path, lambda words: None)
    assert not document["passed"]
    assert "the wing came off" in document["checks"]["breaks"]["shown"]
    assert [row[2] for row in table(document).rows] == ["FAIL", "pass"]
    again = run(checks[1:], tmp_path, lambda words: None)
    assert again["passed"]
    assert len(made) == 1  # what was decided is not done again
    kept = json.loads((tmp_path / "selftest.json").read_text())
    (tmp_path / "selftest.json").write_text(json.dumps({**kept, "selftest": "0.0.0"}))
    run(checks[1:], tmp_path, lambda words: None)
    assert len(made) == 2  # but by another version


def test_checks_are_chosen_by_name():
    assert [check.name for check in chosen(CHECKS, ["speculation", "report", "speculation"], False)] == [
        "speculation",
        "report",
    ]
    assert not any(check.long for check in chosen(CHECKS, [], False))
    assert len(chosen(CHECKS, [], True)) == len(CHECKS)
    with pytest.raises(InputError, match="unknown check 'ledgr'"):
        chosen(CHECKS, ["ledgr"], False)


def test_names_are_those_of_the_recipes():
    assert {null.recipe for null in nulls.NULLS} | {null.baseline for null in nulls.NULLS} <= set(names())
