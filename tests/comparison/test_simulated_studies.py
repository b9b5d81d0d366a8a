"""Whole studies from curves with a known answer, in full: coverage of both estimators, A/A (protocol 15).

What is quick of it is asked by `windtunnel selftest` and its test.
"""

import pytest

from windtunnel.selftest.simulated import (
    BAND_B,
    BANDS_A,
    CENTRAL,
    QUARTERS,
    again,
    coverage,
    coverage_of_inversion,
    relabelled,
    shares_censored,
)

LEAST_ALIKE = 0.92  # 95 % less twice the error of 200 studies


@pytest.mark.slow
def test_two_hundred_relabelings_of_one_pool_of_runs():
    assert relabelled(200) >= LEAST_ALIKE


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_the_baseline_against_itself_two_hundred_times(paired):
    assert again(200, paired, 13) >= LEAST_ALIKE


@pytest.mark.slow
@pytest.mark.parametrize("fractions", [QUARTERS, CENTRAL])
@pytest.mark.parametrize("exponent", [0.3, 1.0])
@pytest.mark.parametrize("speed", [0.8, 0.95, 1.0, 1.05, 1.25])
def test_estimator_b_covers_as_promised(speed, exponent, fractions):
    hits, bias = coverage(speed, exponent, fractions, 2000, seed=21)
    assert BAND_B[0] <= hits <= BAND_B[1]
    assert abs(bias) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("speed", [0.95, 1.25, 2.0])
def test_estimator_a_covers_as_promised(speed, seeds):
    hits, inverted = coverage_of_inversion(speed, seeds, 250 if seeds == 5 else 100)
    assert inverted > 0.95
    assert BANDS_A[seeds][0] <= hits <= BANDS_A[seeds][1]


@pytest.mark.slow
def test_a_variant_that_needs_more_than_was_trained_is_censored():
    censored, worse = shares_censored(200)
    assert censored > 0.9
    assert worse == 1
