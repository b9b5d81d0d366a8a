"""Fits over sizes and budgets: laws with a known answer, coverage, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from tests.comparison.simulated_ladder import (
    STANDARD_ERRORS,
    TRUTH,
    best_loss,
    best_size,
    loss,
    simulated,
)
from windtunnel.comparison.scaling import fit_envelope, fit_loss_law, fit_multiplier, ladder
from windtunnel.comparison.scaling.envelope import find_optima
from windtunnel.comparison.scaling.projection import Terms, project
from windtunnel.comparison.scaling.robust import fit_robust
from windtunnel.comparison.scaling.runs import require
from windtunnel.errors import InputError

FEW = 100


def generator(seed=0):
    return np.random.default_rng(seed)


def optima(runs, seed=0, draws=FEW):
    return find_optima(runs, generator(seed), draws=draws)


def test_coefficients_agree_with_non_negative_least_squares():
    """scipy's active-set NNLS on the same columns, signs of all kinds."""
    random = generator(3)
    terms = Terms(random.normal(size=9), random.normal(size=9), np.ones(9), np.ones(9))
    weights, values = random.uniform(0.5, 2, 9), random.normal(size=(12, 9))
    exponents = random.uniform(0.1, 1.2, (5, 2))
    found, squares = project(terms, exponents[None], values, weights)
    for k, (p, q) in enumerate(exponents):
        columns = np.stack([np.ones(9), np.exp(-p * terms.first), np.exp(-q * terms.second)], axis=1)
        for row, value in enumerate(values):
            theirs, norm = optimize.nnls(np.sqrt(weights)[:, None] * columns, np.sqrt(weights) * value)
            assert found[row, k] == pytest.approx(theirs, abs=1e-8)
            assert squares[row, k] == pytest.approx(norm**2, abs=1e-9)


def test_a_law_without_noise_is_found():
    law = fit_loss_law(simulated(), generator(), draws=FEW)
    for name, truth in TRUTH.items():
        assert law.interval(name).value == pytest.approx(truth, rel=1e-4)
    assert law.reasons == []
    assert law.predict(1e10, 1e11, 4e20).value == pytest.approx(loss(1e10, 1e11), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_published_refit_is_recovered_within_its_errors(seed):
    law = fit_loss_law(simulated(seed, 0.002), generator(), draws=FEW)
    for name, truth in TRUTH.items():
        assert abs(law.interval(name).value - truth) < STANDARD_ERRORS[name]


def test_hubers_loss_shrugs_off_broken_runs():
    """Two of 35 runs at 1.3 times their loss: the exponents stay, those of least squares do not."""
    runs = simulated(1, 0.001)
    losses = runs.losses.copy()
    losses[[3, 17]] *= 1.3
    n, d = np.log(runs.parameters), np.log(runs.tokens)
    ones = np.ones(n.size)
    terms = Terms(n - n.mean(), d - d.mean(), ones, ones)
    exponents = fit_robust(terms, losses[None]).exponents[0]
    assert exponents == pytest.approx([TRUTH["alpha"], TRUTH["beta"]], abs=0.02)
    squares = fit_loss_law(replace(runs, losses=losses), generator(), draws=FEW)
    assert abs(squares.interval("alpha").value - TRUTH["alpha"]) > 0.05


def test_best_sizes_follow_their_exponent():
    found = optima(simulated())
    assert found.exponent.value == pytest.approx(0.5126, abs=0.002)
    assert found.losses[0] == pytest.approx(best_loss(found.compute), rel=1e-3)
    assert np.exp(found.log_parameters[0]) == pytest.approx(best_size(found.compute), rel=0.03)
    assert all(found.inside)


def test_sizes_off_the_best_are_said_to_be():
    envelope = fit_envelope(simulated(shift=16.0), generator(), draws=FEW)
    assert not any(envelope.optima.inside)
    assert any("add a size beyond it" in reason for reason in envelope.reasons)


def test_the_curve_through_best_sizes_goes_on():
    envelope = fit_envelope(simulated(0, 0.002), generator(), draws=FEW)
    assert envelope.predict(1e21).value == pytest.approx(best_loss(1e21), rel=0.01)
    assert envelope.irreducible is not None
    assert fit_envelope(simulated(span=16.0), generator(), draws=FEW).irreducible is None
    assert envelope.correlation > 0.8


@pytest.mark.parametrize("saved", [0.8, 1.0, 1.3])
def test_compute_saved_is_found(saved):
    base, variant = optima(simulated(1, 0.001)), optima(simulated(2, 0.001, saved=saved), 1)
    found = fit_multiplier(base, variant)
    assert not found.separate
    assert saved in found.at(1e19)
    assert found.at(1e19).value == pytest.approx(saved, rel=0.04)
    assert found.crossing is None
    assert found.at(1e18).value == pytest.approx(found.at(2.56e20).value)


def test_a_gain_that_shrinks_with_compute_is_no_single_number():
    """m = 1.6 C^-0.15 falls to 0.7 over 256x and meets 1 at 23x the smallest budget."""
    base, variant = optima(simulated(1, 0.0005)), optima(simulated(2, 0.0005, saved=1.6, bend=-0.15), 1)
    found = fit_multiplier(base, variant)
    assert found.separate
    assert found.at(1e18).low > 1 > found.at(2.56e20).high
    assert found.crossing is not None
    assert found.crossing.value == pytest.approx(1e18 * 1.6 ** (1 / 0.15), rel=0.4)


def test_intervals_cover():
    """Five ladders of the smallest kind that is accepted."""
    hits = [coverage(seed, FEW) for seed in range(5)]
    assert np.mean([each[:3] for each in hits]) >= 0.8


@pytest.mark.slow
def test_intervals_cover_at_length():
    hits = np.mean([coverage(seed, 200) for seed in range(60)], axis=0)
    assert (hits[:4] >= 0.85).all()
    assert (hits[4:] >= 0.8).all()


def coverage(seed, draws):
    """Whether the intervals of alpha, beta, E and of the saving hold the truth, and the hold-outs pass."""
    base = simulated(2 * seed, 0.005, budgets=4, sizes=5)
    variant = simulated(2 * seed + 1, 0.005, budgets=4, sizes=5, saved=1.3)
    law = fit_loss_law(base, generator(seed), draws=draws)
    found = [TRUTH[name] in law.interval(name) for name in ("alpha", "beta", "E")]
    saving = fit_multiplier(optima(base, seed, draws), optima(variant, seed + 1, draws))
    return [*found, 1.3 in saving.at(1e19), law.held_out.passed, saving.held_out.passed]


def test_a_law_that_breaks_at_the_largest_budget_carries_no_claim():
    runs = simulated(0, 0.001)
    broken = replace(runs, losses=np.where(runs.budget == 4, 1.05 * runs.losses, runs.losses))
    for fit in (fit_loss_law, fit_envelope):
        found = fit(broken, generator(), draws=FEW)
        assert found.held_out.error == pytest.approx(0.05, abs=0.01)
        assert "held out" in found.reasons[0]
    saving = fit_multiplier(optima(runs), optima(broken, 1))
    assert saving.reasons


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (simulated(budgets=3), "3 budgets of compute, at least 4 are needed: add 1 of 5 sizes each"),
        (simulated(span=8.0), "budgets span 8x, at least 16x is needed: add one of 1.6e\\+19 FLOPs or more"),
        (simulated(sizes=4), "4 sizes at 1e\\+18 FLOPs, at least 5 are needed: add 1"),
    ],
)
def test_ladders_too_short_say_what_would_do(runs, words):
    with pytest.raises(InputError, match=f"llama: .*{words}"):
        require(runs, "llama")


def test_nothing_is_read_beyond_four_times_the_largest_budget():
    base = simulated(0, 0.001)
    envelope = fit_envelope(base, generator(), draws=FEW)
    assert envelope.predict(4 * 2.56e20).value < envelope.predict(2.56e20).value
    saving = fit_multiplier(envelope.optima, optima(base, 1))
    law = fit_loss_law(base, generator(), draws=FEW)
    for read in (envelope.predict, saving.at, lambda compute: law.predict(1e10, 1e11, compute)):
        with pytest.raises(InputError, match="is 5x the largest budget; a fit is read up to 4x"):
            read(5 * 2.56e20)


def test_runs_are_sorted_into_budgets():
    runs = ladder("arm", parameters=[1, 2, 1, 2], tokens=[1, 1, 9, 9], compute=[10, 11, 90, 80], losses=[4, 3, 2, 1])
    assert runs.budget.tolist() == [0, 0, 1, 1]
    assert (runs.budgets, runs.sizes(0)) == (2, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"losses": [0.0]}, "losses must be above 0"),
        ({"tokens": [1, 2]}, "one entry in each"),
        ({"compute": [np.nan]}, "finite"),
    ],
)
def test_runs_that_cannot_be_are_refused(change, words):
    given = {"parameters": [1.0], "tokens": [1.0], "compute": [1.0], "losses": [1.0]}
    with pytest.raises(InputError, match=words):
        ladder("arm", **{**given, **change})
