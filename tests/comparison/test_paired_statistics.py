"""Intervals of means, tests and adjustments, against the protocol's tables and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from windtunnel import statistics
from windtunnel.comparison.documents import DocumentLosses, combined_interval
from windtunnel.errors import InputError

SEEDS = np.random.default_rng(7)
FIRST, SECOND = SEEDS.normal(3.0, 0.03, 6), SEEDS.normal(3.02, 0.04, 6)


def test_multipliers_are_the_tabulated_ones():
    assert [round(statistics.paired_multiplier(n), 2) for n in (3, 5, 10)] == [2.48, 1.24, 0.72]
    assert [round(statistics.welch_multiplier(n), 2) for n in (3, 5, 10)] == [2.27, 1.46, 0.94]


def test_paired_interval_and_p_are_scipys():
    oracle = stats.ttest_rel(FIRST, SECOND)
    expected = oracle.confidence_interval(0.95)
    found = statistics.paired_interval(FIRST, SECOND)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert statistics.paired_p_value(FIRST, SECOND) == pytest.approx(oracle.pvalue)


def test_welch_interval_is_scipys_with_unequal_sizes():
    oracle = stats.ttest_ind(FIRST, SECOND[:4], equal_var=False).confidence_interval(0.9)
    found = statistics.welch_interval(FIRST, SECOND[:4], 0.9)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


def test_one_seed_has_no_interval():
    found = statistics.paired_interval([3.0], [3.1])
    assert found.value == pytest.approx(-0.1)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert statistics.paired_p_value([3.0], [3.1]) == 1.0


def test_equal_differences_have_a_point_interval():
    found = statistics.welch_interval([1.0, 1.0], [1.0, 1.0])
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)
    assert statistics.paired_p_value([1.0, 1.0], [1.0, 1.0]) == 1.0


def test_sign_flips_are_scipys_permutations_and_have_a_floor():
    pairs = FIRST - SECOND
    oracle = stats.permutation_test((pairs,), np.mean, permutation_type="samples", n_resamples=math.inf)
    found = statistics.sign_flip(FIRST, SECOND)
    assert found.p == pytest.approx(oracle.pvalue)
    five = statistics.sign_flip([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
    assert (five.p, five.floor) == (0.0625, 0.0625)
    assert "0.0625" in five.note
    assert statistics.sign_flip(FIRST, SECOND).floor == 0.03125


def test_many_pairs_use_random_flips():
    found = statistics.sign_flip(np.arange(1.0, 21.0), np.zeros(20))
    assert found.p == found.floor == 1 / 2**16


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_shrinks_p_and_keeps_their_order(p_values):
    adjusted = statistics.holm(p_values)
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    ranks = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[ranks]) >= 0).all()


def test_simultaneous_level_is_bonferronis():
    assert statistics.simultaneous_level(1) == pytest.approx(0.95)
    assert statistics.simultaneous_level(5) == pytest.approx(0.99)
    with pytest.raises(InputError, match="comparisons"):
        statistics.simultaneous_level(0)


def test_equivalence_needs_the_whole_interval():
    assert statistics.equivalent(statistics.Interval(0.0, -0.02, 0.03), 0.03)
    assert not statistics.equivalent(statistics.Interval(0.0, -0.02, 0.031), 0.03)


def test_wilson_is_scipys():
    for successes, trials in ((0, 10), (7, 10), (10, 10), (431, 1000)):
        oracle = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        found = statistics.wilson_interval(successes, trials)
        assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [[1.0]]])
def test_bad_samples_are_refused(bad):
    with pytest.raises(InputError, match="finite"):
        statistics.mean_interval(bad)


def test_pairs_need_equal_numbers():
    with pytest.raises(InputError, match="2 seeds and baseline 3"):
        statistics.paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9), st.floats(-5, 5))
@settings(max_examples=50)
def test_a_shift_of_both_arms_changes_nothing(losses, shift):
    variant = np.array(losses)
    baseline = variant[::-1].copy()
    before = statistics.paired_interval(variant, baseline)
    after = statistics.paired_interval(variant + shift, baseline + shift)
    assert after.ends == pytest.approx(before.ends, abs=1e-9)


def document_study(documents=40, seeds=3):
    generator = np.random.default_rng(11)
    weights = generator.integers(50, 400, documents).astype(float)
    hardness = generator.normal(2.5, 0.5, documents)
    baseline = weights * (hardness + generator.normal(0, 0.02, (seeds, documents)))
    variant = weights * (hardness - 0.05 + generator.normal(0, 0.02, (seeds, documents)))
    return variant, baseline, weights


def test_document_error_is_the_clustered_formula():
    variant, baseline, weights = document_study()
    labels = np.arange(40) % 8
    losses = DocumentLosses.of(variant, baseline, weights, labels)
    d = (variant.mean(0) - baseline.mean(0)) / weights
    delta = (weights * d).sum() / weights.sum()
    total = sum((weights[labels == c] * (d[labels == c] - delta)).sum() ** 2 for c in range(8))
    assert losses.difference() == pytest.approx(delta)
    assert losses.error() == pytest.approx(math.sqrt(total) / weights.sum())
    assert losses.clusters_count == 8


def test_equal_weights_give_the_plain_standard_error():
    variant, baseline, _ = document_study()
    losses = DocumentLosses.of(variant, baseline, np.ones(40))
    d = variant.mean(0) - baseline.mean(0)
    assert losses.error() == pytest.approx(d.std() / math.sqrt(40))


def test_pairing_documents_is_worth_much():
    losses = DocumentLosses.of(*document_study())
    assert losses.unpaired_error() > 5 * losses.error()


def test_documents_widen_the_interval():
    alone = combined_interval(0.1, 0.02, 5, 0.0, 100)
    both = combined_interval(0.1, 0.02, 5, 0.02, 100)
    assert alone.high - alone.value == pytest.approx(stats.t.ppf(0.975, 4) * 0.02)
    freedom = 4 / (1 / 4 + 1 / 99)
    assert both.high - both.value == pytest.approx(stats.t.ppf(0.975, freedom) * 0.02 * math.sqrt(2))


def test_documents_must_be_the_same():
    variant, baseline, weights = document_study()
    with pytest.raises(InputError, match="same documents"):
        DocumentLosses.of(variant[:, 1:], baseline, weights)
    with pytest.raises(InputError, match="no held-out token"):
        DocumentLosses.of(variant, baseline, 0 * weights)


def test_intervals_of_a_deviation_hold_it_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(3.0, 0.02, (2000, 5))
    held = np.mean([0.02 in statistics.deviation_interval(row) for row in draws])
    assert 0.935 < held < 0.965
    assert statistics.deviation_interval(draws[0]).value == pytest.approx(draws[0].std(ddof=1))
    assert statistics.deviation_interval([1.0]).ends == [0.0, math.inf]
