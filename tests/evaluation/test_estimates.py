"""Intervals against scipy, and seeds put together."""

import numpy as np
import pytest
from scipy import stats

from windtunnel.evaluation.estimates import over_documents, over_items, pooled, spelled


def test_documents_of_one_size_give_the_interval_of_their_means():
    sums = np.random.default_rng(0).normal(5, 1, 9)
    found = over_documents(sums, np.full(9, 2))
    low, high = stats.t.interval(0.95, 8, sums.mean() / 2, stats.sem(sums / 2))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["n"] == 9


def test_the_interval_of_a_ratio_covers_it():
    """Documents of very different lengths: 95 % intervals hold the ratio about 95 times in a hundred."""
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        counts = draw.integers(1, 100, 40)
        found = over_documents(counts * 2.0 + draw.normal(0, 3, 40), counts)
        covered += found["low"] <= 2.0 <= found["high"]
    assert 0.90 < covered / 400 < 0.98


def test_documents_without_a_count_say_nothing():
    assert over_documents([1.0, 0.0, 3.0], [2, 0, 2]) == over_documents([1.0, 3.0], [2, 2])


def test_one_document_has_no_interval():
    found = over_documents([1.0], [2])
    assert (found["value"], found["low"], found["high"]) == (0.5, None, None)
    assert spelled(found) == "0.500"


def test_items_are_wilson():
    low, high = stats.binomtest(7, 20).proportion_ci(0.95, method="wilson")
    assert (over_items(7, 20)["low"], over_items(7, 20)["high"]) == pytest.approx((low, high))


def test_seeds_become_means_and_constants_stay():
    trees = [{"a": [over_documents([value], [1])], "n": 3, "odd": value} for value in (1.0, 2.0, 4.5)]
    found = pooled(trees)
    low, high = stats.t.interval(0.95, 2, 2.5, stats.sem([1.0, 2.0, 4.5]))
    assert found["a"][0] == pytest.approx({"value": 2.5, "low": low, "high": high, "n": 3, "over": "seeds"})
    assert (found["n"], found["odd"]) == (3, None)
    assert pooled(trees[:1]) is trees[0]
