"""Slopes and speedups on noiseless curves with known answers, and every way in which there is no number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.comparison.horizons import Horizons, local_slope, nearest_horizons
from windtunnel.comparison.inversion import falling, horizon_bounds, tokens_to_reach
from windtunnel.comparison.speedup import Speedup, local, speedup
from windtunnel.errors import InputError
from windtunnel.statistics import Interval

QUARTERS = (0.25, 0.5, 1.0)


def power_law(fractions, exponent, scale=0.6):
    """L = 2 + B D^-b with slope `scale` at D = 1."""
    return 2 + scale / exponent * np.asarray(fractions, dtype=float) ** -exponent


def study(speed, exponent=0.5, fractions=QUARTERS, sigma=0.0, seeds=5, generator=None):
    """A variant that is the baseline with `speed` times the tokens; seeds share half of their variance."""
    generator = generator or np.random.default_rng(3)
    shared = generator.normal(size=seeds)

    def arm(tokens):
        own = generator.normal(size=(len(fractions), seeds))
        noise = sigma * (math.sqrt(0.5) * shared + math.sqrt(0.5) * own)
        return dict(zip(fractions, power_law(tokens, exponent)[:, None] + noise, strict=True))

    return Horizons.of(arm(speed * np.array(fractions)), arm(np.array(fractions)))


@pytest.mark.parametrize("fractions", [QUARTERS, (0.5, 1.0, 2.0), (0.3, 0.55, 1.0), (1.0, 1.5, 4.0)])
@pytest.mark.parametrize("exponent", [0.05, 0.3, 1.0, 1.7])
def test_the_slope_of_a_power_law_is_exact(fractions, exponent):
    losses = np.repeat(power_law(fractions, exponent)[:, None], 3, axis=1)
    for index, fraction in enumerate(fractions):
        slope = local_slope(fractions, losses, index)
        assert slope is not None
        assert slope.value == pytest.approx(0.6 * fraction**-exponent, rel=1e-6)


def test_a_straight_line_has_one_slope():
    losses = (3 - 0.4 * np.log(QUARTERS))[:, None]
    for index in range(3):
        assert local_slope(QUARTERS, losses, index).value == pytest.approx(0.4)


def test_two_horizons_give_the_difference_quotient():
    losses = np.array([[3.0, 3.1], [2.8, 2.7]])
    assert local_slope((0.5, 1.0), losses, 1).value == pytest.approx(0.3 / math.log(2))
    assert local_slope((1.0,), losses[1:], 0) is None


def test_the_influence_is_the_jackknife_of_the_slope():
    losses = power_law(QUARTERS, 0.5)[:, None] + np.random.default_rng(0).normal(0, 1e-3, (3, 6))
    slope = local_slope(QUARTERS, losses, 2)
    left_out = [local_slope(QUARTERS, np.delete(losses, s, axis=1), 2).value for s in range(6)]
    jackknife = 5 * (slope.value - np.array(left_out))
    assert slope.influence == pytest.approx(jackknife, abs=0.02 * np.abs(jackknife).max())


def test_nearest_horizons_are_central_where_they_can_be():
    assert nearest_horizons((0.25, 0.5, 1.0, 2.0), 2) == [1, 2, 3]
    assert nearest_horizons((0.25, 0.5, 1.0), 2) == [0, 1, 2]
    assert nearest_horizons((0.25, 0.5, 1.0, 2.0), 0) == [0, 1, 2]


@pytest.mark.parametrize("speed", [0.8, 0.95, 1.0, 1.05, 1.25])
@pytest.mark.parametrize("exponent", [0.2, 0.6, 1.2])
def test_noiseless_speedups_are_found_by_both_estimators(speed, exponent):
    for prefer, tolerance in (("A", 0.001), ("B", 0.01)):
        found = speedup(study(speed, exponent), prefer=prefer)
        assert found.value == pytest.approx(speed, rel=tolerance)


def test_a_large_speedup_is_inverted_not_extrapolated():
    found = speedup(study(2.0, sigma=0.01))
    assert found.estimator == "A"
    assert 2.0 in Interval(found.value, *found.ends)
    assert found.value == pytest.approx(2.0, rel=0.05)


def test_a_target_that_is_not_reached_gives_a_bound():
    found = speedup(study(0.4, sigma=0.01))
    assert found.censored
    assert found.value is None
    assert found.ends == [None, pytest.approx(1.0)]
    assert found.text == "< 1.00"
    assert found.direction.high < math.log(0.8)


def test_a_longer_variant_horizon_brackets_it():
    found = speedup(study(0.6, fractions=(0.5, 1.0, 2.0), sigma=0.01))
    assert found.estimator == "A"
    assert found.value == pytest.approx(0.6, rel=0.05)


def test_a_variant_beyond_its_shortest_horizon_gives_a_bound():
    found = speedup(study(9.0, sigma=0.01))
    assert found.censored
    assert found.text == "> 4.00"


def test_two_horizons_and_a_large_difference_are_bracketed_only():
    found = speedup(study(1.7, fractions=(0.5, 1.0), sigma=0.005))
    assert found.censored
    assert found.text == "between 1.00 and 2.00"


def test_a_flat_baseline_has_no_speedup():
    generator = np.random.default_rng(1)
    flat = {f: generator.normal(3.0, 0.02, 5) for f in QUARTERS}
    found = speedup(Horizons.of({f: flat[f] - 0.05 for f in QUARTERS}, flat))
    assert found.value is None
    assert found.ends == [None, None]
    assert found.text.startswith("no slope")


def test_one_horizon_has_no_speedup():
    found = speedup(Horizons.of({1.0: [3.0, 3.1]}, {1.0: [3.2, 3.3]}))
    assert "only one horizon" in found.text


def test_one_seed_has_a_value_without_interval():
    found = speedup(study(1.2, seeds=1))
    assert found.value == pytest.approx(1.2, rel=0.01)
    assert found.ends == [None, None]
    assert found.text == "1.20"


def test_a_diverged_variant_is_censored_not_wild():
    horizons = study(1.0, sigma=0.01)
    broken = Horizons(horizons.fractions, horizons.baseline, np.full_like(horizons.variant, 6.9))
    found = speedup(broken)
    assert found.censored
    assert found.direction.high < 0


def test_slopes_that_differ_are_noted():
    wobble = np.array([0.0, 0.001, -0.001])
    base = {f: 3.0 - 0.5 * math.log(f) + wobble for f in QUARTERS}
    steep = {f: 3.0 - 0.9 * math.log(f) + wobble[::-1] for f in QUARTERS}
    assert "gain depends on horizon" in speedup(Horizons.of(steep, base)).notes
    assert not speedup(study(1.1)).notes


def test_times_and_flops_multiply_and_widen():
    tokens = speedup(study(1.2, sigma=0.01))
    flops = tokens.times(-math.log(1.1))
    assert flops.value == pytest.approx(tokens.value / 1.1)
    assert flops.log.high - flops.log.low == pytest.approx(tokens.log.high - tokens.log.low)
    time = tokens.times(math.log(0.9), 0.02, 0.95, 8)
    assert time.value == pytest.approx(0.9 * tokens.value)
    assert time.log.high - time.log.low > tokens.log.high - tokens.log.low
    bound = speedup(study(0.4, sigma=0.01)).times(math.log(0.5))
    assert bound.text == "< 0.50"


def test_refused_speedups_stay_refused():
    refused = Speedup(None, False, None, "no slope: why")
    assert refused.times(0.1, 0.1, 0.95, 5).text == "no slope: why"


def test_a_rise_is_flattened_first():
    knots, levels = falling(np.log([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 2.5, 2.6, 2.0]))
    assert levels == pytest.approx([3.0, 2.55, 2.0])
    assert np.exp(knots) == pytest.approx([1.0, math.sqrt(8), 8.0])


def test_extrapolation_ends_at_a_quarter():
    positions = np.log(QUARTERS)
    losses = 3 - 0.5 * positions
    assert tokens_to_reach(positions, losses, 3 - 0.5 * math.log(1.2)) == pytest.approx(math.log(1.2))
    assert tokens_to_reach(positions, losses, 3 - 0.5 * math.log(1.3)) == math.inf
    assert tokens_to_reach(positions, losses, 3 - 0.5 * math.log(0.19)) == -math.inf
    assert math.isnan(tokens_to_reach(positions, np.full(3, 3.0), 2.9))


def test_bounds_come_from_the_horizons():
    assert horizon_bounds(study(3.0), 2) == pytest.approx((math.log(2), math.log(4)))
    assert horizon_bounds(study(0.4), 2) == pytest.approx((-math.inf, 0.0))


def test_horizons_need_d_and_equal_seeds():
    with pytest.raises(InputError, match=r"1\.0 is missing"):
        Horizons.of({0.5: [3.0]}, {0.5: [3.0]})
    with pytest.raises(InputError, match="3 seeds at D and baseline 2"):
        Horizons.of({1.0: [1.0, 2.0, 3.0]}, {1.0: [1.0, 2.0]})
    kept = Horizons.of({1.0: [1.0, 2.0], 2.0: [1.0]}, {1.0: [1.0, 2.0], 2.0: [0.9]})
    assert kept.fractions == (1.0,)


@given(st.floats(0.7, 1.45), st.floats(0.1, 1.5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_swapping_the_arms_inverts_the_speedup(speed, exponent, seed):
    one = study(speed, exponent, sigma=0.005, generator=np.random.default_rng(seed))
    other = Horizons(one.fractions, one.variant, one.baseline)
    first, second = local(one, 2), local(other, 2)
    assert first.log_ratio == pytest.approx(-second.log_ratio)
    assert first.interval().low == pytest.approx(-second.interval().high)


@given(st.floats(0.5, 20.0), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_units_of_loss_do_not_matter(scale, shift):
    one = study(1.15, sigma=0.01)
    other = Horizons(one.fractions, scale * one.baseline + shift, scale * one.variant + shift)
    assert speedup(other).value == pytest.approx(speedup(one).value, rel=1e-5)
    assert speedup(other).ends == pytest.approx(speedup(one).ends, rel=1e-4)
