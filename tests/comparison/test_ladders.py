"""Ladders: what is planned, what is refused, the rule for learning rates, and whole ladders whose law is known."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.comparison.simulated_pool import INITIAL, SimulatedPool
from windtunnel.comparison.ladders.bill import Bill, planned
from windtunnel.comparison.ladders.design import DESIGNS, parse_budgets
from windtunnel.comparison.ladders.engine import around_minima, run_ladder
from windtunnel.comparison.ladders.ladder import Rung, load_ladder
from windtunnel.comparison.ladders.rates import Point, fit_rule
from windtunnel.comparison.ladders.request import LadderRequest, plan_ladder
from windtunnel.comparison.ladders.results import assemble
from windtunnel.comparison.ladders.sizes import Sizing
from windtunnel.comparison.scaling import fit_arms, read_sources
from windtunnel.errors import InputError, WorkError
from windtunnel.ledger import n_active, n_body_active
from windtunnel.selftest.small import text

BUDGETS = (1e11, 2.5e11, 6.3e11, 1.6e12)
RATES = {"llama": (1.2e-2, -0.2, -0.1), "ngpt": (2e-2, -0.3, 0.1)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "my.txt"
    path.write_text(text())
    return path


def request(corpus, out, *arms, **changes):
    options = {
        "preset": "pilot",
        "context": 32,
        "batch_size": 8,
        "budgets": BUDGETS,
        "evaluation_tokens": 2_048,
        "tokens_per_parameter": 20.0,
        "max_epochs": 1000.0,
        "data": (corpus,),
        "cache": corpus.parent / "cache",
        **changes,
    }
    return LadderRequest(arms=arms or ("llama", "ngpt"), out=out, **options)


@pytest.fixture(scope="module")
def ladder(corpus, tmp_path_factory):
    return plan_ladder(request(corpus, tmp_path_factory.mktemp("plan") / "ladder"))


def bill(ladder):
    rates = {(arm, size): 1e-4 for arm in ladder.labels for size in range(len(ladder.sizes))}
    return Bill({}, {}, rates, 2)


def carried_out(ladder, folder, pool):
    return run_ladder(ladder, folder, pool=pool, bill=bill(ladder))


def test_sizes_repeat_from_budget_to_budget_and_each_run_spends_its_budget(ladder):
    sizes = [n_active(study.arm("llama").spec) for study in ladder.sizes]
    assert len(sizes) == 8
    assert all(1.4 < b / a <= 2.0 for a, b in pairwise(sizes))
    for rung in ladder.all_rungs():
        assert ladder.flops(rung) == pytest.approx(BUDGETS[rung.budget], rel=0.01)
        assert ladder.run_settings(rung, 1e-3, 1).tokens == ladder.tokens(rung)
    for study in ladder.sizes:
        assert n_body_active(study.arm("ngpt").spec) == pytest.approx(n_body_active(study.arm("llama").spec), rel=0.01)


def test_the_middle_size_of_each_budget_is_the_expected_best_one(ladder):
    for budget in range(4):
        middle = ladder.rungs("llama", budget)[2]
        ratio = ladder.tokens(middle) / n_active(ladder.arm(middle).spec)
        assert 20 / 1.3 < ratio < 20 * 1.3


def test_layers_come_in_whole_patterns_of_every_arm():
    sizing = Sizing(("llama", "griffin"), None, DESIGNS["pilot"], 257, {})
    assert {len(arm.spec.layers) for arm in sizing.arms_at(4e4)} == {3}
    alone = Sizing(("llama", "ngpt"), None, DESIGNS["pilot"], 257, {})
    assert {len(arm.spec.layers) for arm in alone.arms_at(4e4)} == {2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": (1e11, 4e11, 1.6e12)}, "3 given, at least 4 are needed for a fit: add 1"),
        ({"budgets": (1e11, 2e11, 4e11, 8e11)}, "span 8x, at least 16x is needed for a fit: end at 1.6e\\+12"),
        ({"budgets": (1e11, 1.01e11, 1.02e11, 1.6e12)}, "too unevenly.*1e\\+11, 2.52e\\+11, 6.35e\\+11, 1.6e\\+12"),
        ({"sizes": 4}, "4 for each budget, at least 5"),
        ({"budgets": (1e7, 4e7, 1e8, 1.6e8)}, "no size of llama has .* raise the smallest budget, or lower --vocab"),
        (
            {"tokens_per_parameter": 0.5, "batch_size": 128},
            "would be trained for .* steps, at least 100.*begin at .* FLOPs, or take a --batch",
        ),
        (
            {"max_epochs": 4.0},
            "epochs.*smallest size at 1.6e.12 FLOPs: end at .* FLOPs, bring .*x the text, or pass --max-epochs",
        ),
        ({"settings": {"width": 64}}, "width: a ladder plans its own sizes"),
        ({"preset": "smoll"}, "unknown preset 'smoll'.*small"),
    ],
)
def test_what_cannot_carry_a_fit_is_refused_with_what_would_do(corpus, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        plan_ladder(request(corpus, tmp_path / "ladder", **changes))
    assert not (tmp_path / "ladder").exists()


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (("llama", "hot=llama:lr_factor=4"), "lr_factor is set, but controls are for compare"),
        (("llama:width=32", "ngpt"), "width is set, but a ladder plans its own sizes"),
        (("llama", "ngtp"), "ngpt"),
    ],
)
def test_arms_that_have_no_place_in_a_ladder(corpus, tmp_path, arms, message):
    with pytest.raises(InputError, match=message):
        plan_ladder(request(corpus, tmp_path / "ladder", *arms))


def test_budgets_as_typed():
    assert parse_budgets("1e12,4e12") == (1e12, 4e12)
    assert parse_budgets("1e12:1.6e13") == (1e12, 2.52e12, 6.35e12, 1.6e13)
    assert len(parse_budgets("1e12:1.6e13:5")) == 5
    for wrong in ("much", "1e12:", "1e12:2e12:3:4", "2e12:1e12", "1e12:2e12:1"):
        with pytest.raises(InputError, match="budgets"):
            parse_budgets(wrong)


def test_a_typed_span_keeps_its_ends():
    """A rounded end would leave 15.95x of the 16x that were asked for."""
    assert parse_budgets("8.4e11:1.344e13")[-1] == 1.344e13
    assert replace(DESIGNS["small"], budgets=parse_budgets("8.4e11:1.344e13")).check()
    with pytest.raises(InputError, match=r"end at 1.35e\+13 or more"):
        replace(DESIGNS["small"], budgets=parse_budgets("8.4e11:1.34e13")).check()


def test_the_small_preset_reaches_across_the_best_size_on_bytes(corpus, tmp_path):
    """About 50 tokens a parameter, and from 0.05M to about 1M body parameters."""
    options = {"max_epochs": 1e5, "evaluation_tokens": 2_048, "data": (corpus,), "cache": corpus.parent / "cache"}
    found = plan_ladder(LadderRequest(arms=("llama", "ngpt"), out=tmp_path / "ladder", preset="small", **options))
    for budget in range(4):
        ratios = [found.tokens(rung) / n_active(found.arm(rung).spec) for rung in found.rungs("llama", budget)]
        assert ratios[0] > 50 * 1.5
        assert ratios[2] < 50
    sizes = [n_body_active(study.arm("llama").spec) for study in found.sizes]
    assert sizes[0] < 5e4
    assert sizes[-1] > 9e5


def test_every_preset_is_a_ladder_that_a_fit_accepts():
    for one in DESIGNS.values():
        assert one.check().size_step <= 2.0


def test_a_rule_comes_back_and_a_few_points_do_not_run_away():
    truth = lambda n, d: 0.8 * (n / 1e5) ** -0.2 * (d / 1e6) ** 0.1  # noqa: E731
    places = [(n, d) for n in (1e4, 1e5, 1e6) for d in (1e5, 1e6, 1e7)]
    rule = fit_rule([Point(n, d, truth(n, d)) for n, d in places])
    assert rule.at(3e5, 3e6) == pytest.approx(truth(3e5, 3e6), rel=0.02)
    assert rule.by_parameters == pytest.approx(-0.2, abs=0.02)
    noisy = fit_rule([Point(1e5, 1e6, 1.0), Point(1.5e5, 7e5, 2.0)])
    assert abs(noisy.by_parameters) < 0.5
    near = fit_rule([Point(1e5, 1e6, 1.0), Point(1e5, 1e6, 2.0, weight=3.0)])
    assert near.at(1e5, 1e6) == pytest.approx(2.0 ** (9 / 10))
    assert fit_rule([Point(1e5, 1e6, 0.5)]).at(1e7, 1e8) == pytest.approx(0.5)


def test_a_whole_ladder_of_a_known_law(ladder, tmp_path):
    pool = SimulatedPool(RATES, sigma=0.001, saved=1.5)
    results = carried_out(ladder, tmp_path / "ladder", pool)
    for arm, (factor, by_parameters, by_tokens) in RATES.items():
        entry = results["arms"][arm]
        assert entry["check"]["agreed"]
        assert not entry["untuned"]
        for run in entry["runs"]:
            size = n_active(ladder.sizes[run["size"] - 1].arm(arm).spec)
            best = factor * (size / 1e4) ** by_parameters * (run["tokens"] / 1e5) ** by_tokens
            assert abs(math.log2(run["lr"] / best)) < 0.5
        assert {run["seed"] for run in entry["runs"]} == {1, 2}
        assert sum(run["seed"] == 2 for run in entry["runs"]) == 4 * 3
    source = read_sources([tmp_path / "ladder"])
    assert source.arms["llama"].losses.size == 4 * 5 + 4 * 3
    found = fit_arms(source, draws=100)["multipliers"]["ngpt"]["at"]["largest"]
    assert found["ci95"][0] < 1.5 < found["ci95"][1]
    assert assemble(tmp_path / "ladder") == results


def test_tuning_seeds_are_never_reported(ladder, tmp_path):
    pool = SimulatedPool(RATES)
    carried_out(ladder, tmp_path / "ladder", pool)
    trials = [name for name in pool.names if "/trials/" in name]
    assert trials
    for name in trials:
        run = json.loads((tmp_path / "ladder" / "trials" / name.split("/trials/")[1] / "run.json").read_text())
        settings = run["identity"]["settings"]
        assert settings["seed"] == settings["data_seed"] == 0


def test_a_rate_that_falls_more_steeply_than_the_sweeps_show_is_found_by_the_check(ladder, tmp_path):
    """Four sweeps know little of D; the prior holds the slope back, and the check at the largest budget moves it."""
    steep = {"llama": (1.2e-2, 0.0, -1.0), "ngpt": (1.2e-2, 0.0, 0.0)}
    results = carried_out(ladder, tmp_path / "ladder", SimulatedPool(steep))
    check = results["arms"]["llama"]["check"]
    assert check["moved"] >= 1
    assert check["agreed"]
    assert abs(check["missed_octaves"]) <= 0.5
    assert results["arms"]["ngpt"]["check"]["moved"] == 0


def test_a_rate_that_no_move_reaches_is_said(ladder, tmp_path):
    lost = {"llama": (1.2e-2, 0.0, -4.0), "ngpt": (1.2e-2, 0.0, 0.0)}
    results = carried_out(ladder, tmp_path / "ladder", SimulatedPool(lost))
    assert results["arms"]["llama"]["untuned"]
    assert any("llama" in note for note in read_sources([tmp_path / "ladder"]).notes)


def test_a_killed_ladder_goes_on_and_ends_the_same(ladder, tmp_path):
    whole = SimulatedPool(RATES, sigma=0.001)
    expected = carried_out(ladder, tmp_path / "whole", whole)
    first = SimulatedPool(RATES, sigma=0.001, killed_after=30)
    with pytest.raises(KeyboardInterrupt):
        carried_out(ladder, tmp_path / "killed", first)
    with pytest.raises(WorkError, match="stopped before its tuning ended"):
        assemble(tmp_path / "killed")
    second = SimulatedPool(RATES, sigma=0.001)
    found = carried_out(ladder, tmp_path / "killed", second)
    assert found["arms"] == expected["arms"]
    assert len(first.names) + len(second.names) == len(whole.names)


def test_more_seeds_go_to_the_three_sizes_around_each_minimum(ladder):
    losses = {rung: (rung.size - rung.budget - 3) ** 2 for rung in ladder.all_rungs()}
    chosen = around_minima(ladder, losses)
    assert [rung.size for rung in chosen if rung.arm == "llama" and rung.budget == 0] == [2, 3, 4]
    at_the_end = {rung: -rung.size for rung in ladder.all_rungs()}
    assert [rung.size for rung in around_minima(ladder, at_the_end) if rung == Rung("ngpt", 1, rung.size)] == [3, 4, 5]


def test_a_broken_arm_is_reported_and_the_others_are_fitted(ladder, tmp_path):
    results = carried_out(ladder, tmp_path / "ladder", SimulatedPool(RATES, broken="/ngpt/"))
    assert list(results["arms"]) == ["llama"]
    assert results["failures"][0]["error"] == "ValueError: broken on purpose"


def test_a_diverged_run_counts_with_its_initial_loss_and_is_said(ladder, tmp_path):
    pool = SimulatedPool(RATES, lost="runs/ngpt/budget-4/size-8")
    entry = carried_out(ladder, tmp_path / "ladder", pool)["arms"]["ngpt"]
    assert (entry["diverged"], max(run["loss"] for run in entry["runs"])) == (1, INITIAL)
    assert any("1 diverged" in note for note in read_sources([tmp_path / "ladder"]).notes)


def test_the_bill_counts_what_is_run(ladder, tmp_path):
    pool = SimulatedPool(RATES)
    carried_out(ladder, tmp_path / "ladder", pool)
    phases = planned(ladder)
    counted = {kind: sum(f"/{kind}/" in name for name in pool.names) for kind in ("trials", "runs")}
    assert counted["runs"] == len(phases["runs"]) + len(phases["seeds"])
    assert counted["trials"] <= len(phases["sweeps"]) + len(phases["check"]) + 8


def test_a_registered_question_is_not_changed(ladder, corpus, tmp_path):
    carried_out(ladder, tmp_path / "ladder", SimulatedPool(RATES))
    again = request(corpus, tmp_path / "ladder")
    assert plan_ladder(again).id == ladder.id
    assert load_ladder(tmp_path / "ladder")[0].id == ladder.id
    with pytest.raises(InputError, match=r"holds another ladder .*design.seeds.*another --out"):
        plan_ladder(replace(again, seeds=3))
    other = corpus.parent / "other.txt"
    other.write_text(text(seed=1))
    with pytest.raises(InputError, match=r"holds another ladder .*data.fingerprint"):
        plan_ladder(replace(again, data=(other,)))
    path = tmp_path / "ladder" / "ladder.json"
    path.write_text(path.read_text().replace('"seeds": 2', '"seeds": 1'))
    with pytest.raises(InputError, match="was changed"):
        load_ladder(tmp_path / "ladder")
