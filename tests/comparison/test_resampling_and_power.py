"""Bootstraps and power, against the protocol's coverage figures and tables."""

import math

import numpy as np
import pytest
from scipy import stats

from windtunnel.comparison import power, resampling
from windtunnel.errors import InputError


def generator():
    return np.random.default_rng(5)


def test_expanded_tail_is_the_formula():
    assert 2 * resampling.expanded_tail(5) == pytest.approx(2 * stats.norm.cdf(-math.sqrt(5 / 4) * 2.7764), rel=1e-3)
    assert resampling.expanded_tail(10_000) == pytest.approx(0.025, rel=1e-3)


def test_bootstrap_is_reproducible_from_its_generator():
    values = [1.0, 2.0, 4.0, 8.0]
    first = resampling.bootstrap_mean(values, generator())
    np.random.seed(1)  # noqa: NPY002  (the global state must not matter)
    assert resampling.bootstrap_mean(values, generator()) == first


def test_equal_resamples_are_computed_once():
    calls = []
    values = np.array([1.0, 2.0, 3.0])

    def mean(indices):
        calls.append(tuple(indices))
        return float(values[indices].mean())

    draws = resampling.bootstrap(mean, 3, generator(), draws=500)
    assert len(calls) == len(set(calls)) <= 10
    assert draws.size == 500
    assert draws.mean() == pytest.approx(2.0, abs=0.1)


def test_probability_of_improvement_is_mann_whitney():
    variant, baseline = generator().normal(0, 1, 7), generator().normal(0.3, 1, 5)
    oracle = stats.mannwhitneyu(-variant, -baseline).statistic / 35
    found = resampling.probability_of_improvement(variant, baseline, generator())
    assert found.value == pytest.approx(oracle)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_probability_of_improvement_counts_ties_half():
    assert resampling.probability_of_improvement([1.0, 1.0], [1.0, 1.0], generator()).value == 0.5
    alone = resampling.probability_of_improvement([1.0], [2.0], generator())
    assert (alone.low, alone.value, alone.high) == (0.0, 1.0, 1.0)


def test_seeds_that_establish_a_probability():
    assert [resampling.seeds_for_probability(gamma) for gamma in (0.75, 0.8, 0.9)] == [29, 21, 12]


def test_interquartile_mean_trims_a_quarter_of_each_side():
    scores = [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 100.0]]
    found = resampling.interquartile_mean(scores, generator())
    assert found.value == pytest.approx(np.mean([2.0, 3.0, 4.0, 5.0]))
    assert found.low <= found.value <= found.high


def test_interquartile_mean_of_few_cells_is_refused():
    with pytest.raises(InputError, match="7 cells"):
        resampling.interquartile_mean([[1.0] * 3, [2.0] * 4], generator())


def test_detectable_differences_are_the_tabulated_ones():
    unpaired = [power.detectable(n, paired=False) for n in (3, 5, 10)]
    paired = [power.detectable(n) for n in (3, 5, 10)]
    assert unpaired == pytest.approx([3.07, 2.03, 1.33], abs=0.01)
    assert paired == pytest.approx([3.27, 1.68, 1.00], abs=0.01)


def test_power_is_the_simulated_share():
    seeds, effect = 5, 1.3
    draws = generator().normal(effect, 1, (20_000, seeds))
    seen = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power.power(effect, seeds) == pytest.approx(seen, abs=0.01)


@pytest.mark.parametrize(("effect", "paired"), [(3.0, True), (1.1, True), (0.4, True), (0.7, False), (0.05, True)])
def test_required_seeds_is_the_fewest(effect, paired):
    seeds = power.required_seeds(effect, paired)
    assert seeds is not None
    assert power.power(effect, seeds, paired) >= 0.8
    assert seeds == 2 or power.power(effect, seeds - 1, paired) < 0.8


def test_no_effect_needs_no_number_of_seeds():
    assert power.required_seeds(0.0) is None
    assert power.required_seeds(1e-4) is None


def test_the_announcement_says_the_speedup():
    text = power.announcement(5, 0.0179, 0.53, prior=True)
    delta = power.detectable(5) * 0.0179
    assert f"{delta:.4f} nats" in text
    assert f"{100 * (math.exp(delta / 0.53) - 1):.1f} %" in text
    assert "assumed" in text
    assert "measured" in power.announcement(5, 0.0179, None, prior=False)
    assert "no verdict" in power.announcement(1, 0.0179, 0.53, prior=True)


def test_more_comparisons_see_less():
    one, three = (power.detectable(5, alpha=0.05 / k) for k in (1, 3))
    assert three > one


def test_one_seed_or_no_slope_is_refused():
    with pytest.raises(InputError, match="seeds: 1"):
        power.detectable(1)
    with pytest.raises(InputError, match="slope"):
        power.detectable_speedup(0.1, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "coverage"), [(3, 0.74), (5, 0.92), (10, 0.94)])
def test_expanded_bootstrap_covers_as_tabulated(seeds, coverage):
    draw = generator()
    hits = [0.0 in resampling.bootstrap_mean(draw.normal(0, 1, seeds), draw) for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(coverage, abs=0.025)


@pytest.mark.parametrize("comparisons", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_every_design_has_a_detectable_difference_with_the_power_asked(seeds, comparisons):
    effect = power.detectable(seeds, alpha=0.05 / comparisons)
    assert power.power(effect, seeds, alpha=0.05 / comparisons) == pytest.approx(0.8, abs=1e-6)
