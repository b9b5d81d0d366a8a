"""The sweep, driven as an engine drives it, over losses with a known best learning rate."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.comparison.tuning import (
    Trial,
    TuningRule,
    baseline_extras,
    choose,
    expected_best,
    granted_trials,
    lr_sensitivity,
    next_trials,
)
from windtunnel.errors import InputError

CENTRE, INITIAL = 3e-3, 6.9
QUICK = TuningRule(CENTRE, INITIAL, edge_cap=1, refine=False)
STANDARD = TuningRule(CENTRE, INITIAL)


def sweep(rule, loss, limit=30):
    """Runs a whole sweep; `loss` of log2(lr / centre), NaN for a diverged run."""
    done = []
    while wanted := next_trials(done, rule):
        for lr in wanted:
            value = loss(math.log2(lr / rule.centre))
            done.append(Trial(lr, value, math.isnan(value)))
        assert len(done) < limit
    return done


def bowl(best):
    return lambda k: 3.0 + 0.05 * (k - best) ** 2


def steps(trials):
    return [round(math.log2(trial.lr / CENTRE), 3) for trial in trials]


def test_the_grid_is_five_doublings():
    assert STANDARD.grid() == pytest.approx([CENTRE * 2.0**k for k in (-2, -1, 0, 1, 2)])
    assert next_trials([], STANDARD) == STANDARD.grid()


def test_an_interrupted_grid_asks_only_for_what_is_missing():
    done = [Trial(lr, 3.0) for lr in STANDARD.grid()[:3]]
    assert next_trials(done, STANDARD) == STANDARD.grid()[3:]


def test_quick_takes_the_best_grid_point():
    done = sweep(QUICK, bowl(0.4))
    choice = choose(done, QUICK)
    assert len(done) == 5
    assert choice.lr == pytest.approx(CENTRE)
    assert not choice.at_edge
    assert not choice.untuned


def test_an_edge_gets_one_trial_in_quick():
    done = sweep(QUICK, bowl(2.3))
    assert steps(done) == [-2, -1, 0, 1, 2, 3]
    choice = choose(done, QUICK)
    assert choice.lr == pytest.approx(4 * CENTRE)
    assert not choice.untuned


def test_still_at_the_edge_is_untuned():
    done = sweep(QUICK, bowl(-7))
    assert steps(done)[-1] == -3
    choice = choose(done, QUICK)
    assert choice.at_edge
    assert choice.untuned
    assert "lowest" in choice.reason


def test_standard_goes_out_four_times_and_refines_there():
    done = sweep(STANDARD, bowl(4.2))
    assert steps(done) == [-2, -1, 0, 1, 2, 3, 4, 5, 3.5, 4.5]
    assert choose(done, STANDARD).lr == pytest.approx(CENTRE * 2**4.2)
    falling = sweep(STANDARD, lambda k: 3.0 - 0.1 * k)
    assert steps(falling)[-1] == 6
    assert choose(falling, STANDARD).untuned


def test_a_diverged_trial_is_a_bad_point_not_a_missing_one():
    done = sweep(STANDARD, lambda k: math.nan if k > 2 else 3.0 - 0.1 * k)
    assert steps(done)[:6] == [-2, -1, 0, 1, 2, 3]
    choice = choose(done, STANDARD)
    assert not choice.at_edge
    assert choice.lr == pytest.approx(4 * CENTRE, rel=0.5)
    assert STANDARD.score(done[5]) == INITIAL


def test_all_diverged_is_untuned():
    done = sweep(QUICK, lambda k: math.nan)
    choice = choose(done, QUICK)
    assert choice.untuned
    assert choice.best_loss == INITIAL


def test_a_parabola_that_opens_downwards_is_not_used():
    losses = {-2: 3.3, -1: 3.05, 0: 3.0, 1: 3.05, 2: 3.3, -0.5: 3.9, 0.5: 3.9}
    choice = choose([Trial(CENTRE * 2.0**k, loss) for k, loss in losses.items()], STANDARD)
    assert choice.curvature is not None
    assert choice.curvature < 0
    assert choice.lr == CENTRE
    assert choice.reason == "best trial"


@given(st.floats(-1.9, 1.9))
@settings(max_examples=60)
def test_a_bowl_is_found_where_it_is(best):
    done = sweep(STANDARD, bowl(best))
    choice = choose(done, STANDARD)
    assert math.log2(choice.lr / CENTRE) == pytest.approx(best, abs=1e-6)
    assert choice.curvature == pytest.approx(0.05, rel=1e-3)


@given(st.lists(st.floats(2, 8) | st.just(math.nan), min_size=40, max_size=40), st.booleans())
@settings(max_examples=100)
def test_a_sweep_always_ends_within_its_budget(losses, refine):
    rule = TuningRule(CENTRE, INITIAL, edge_cap=3, refine=refine)
    values = iter(losses)
    done = sweep(rule, lambda k: next(values), limit=40)
    assert 5 <= len(done) <= 5 + 3 + 2 * 8
    choice = choose(done, rule)
    assert choice.best_loss == min(rule.score(trial) for trial in done)
    assert abs(math.log2(choice.lr / choice.best_trial)) <= 0.5 + 1e-9


def test_sensitivity_of_a_parabola():
    done = [Trial(CENTRE * 2.0**k, 3 + 0.05 * k**2) for k in np.arange(-3, 3.01, 0.25)]
    found = lr_sensitivity(done, STANDARD)
    assert found.value == pytest.approx(0.05 * 3, rel=0.01)
    assert found.octaves == pytest.approx(6)


def test_sensitivity_is_over_what_was_tried_and_capped_by_the_initial_loss():
    done = [Trial(CENTRE * 2.0**k, loss, k == 2) for k, loss in zip((-1, 0, 1, 2), (3.1, 3.0, 3.1, 1e9), strict=True)]
    found = lr_sensitivity(done, STANDARD)
    assert found.octaves == pytest.approx(3)
    assert found.value == pytest.approx((0.05 + 0.05 + (0.1 + INITIAL - 3.0) / 2) / 3)


def test_expected_best_by_enumeration():
    losses = [3.4, 3.0, 3.1]
    found = expected_best(losses)
    pairs = np.mean([min(a, b) for a in losses for b in losses])
    assert found[0] == pytest.approx(np.mean(losses))
    assert found[1] == pytest.approx(pairs)
    assert sorted(found, reverse=True) == found


def test_trial_parity():
    assert granted_trials([]) == 0
    assert granted_trials([2, 0, 3]) == 3
    extras = baseline_extras(6, 0.1, 0.95)
    assert len(extras) == len(set(extras)) == 6
    assert extras[:3] == [("weight_decay", 0.05), ("weight_decay", 0.2), ("beta2", pytest.approx(0.975))]


def test_bad_rules_are_refused():
    with pytest.raises(InputError, match="centre"):
        TuningRule(0.0, INITIAL)
    with pytest.raises(InputError, match="ratio"):
        TuningRule(CENTRE, INITIAL, ratio=1.0)
    with pytest.raises(InputError, match="no trial"):
        choose([], STANDARD)
