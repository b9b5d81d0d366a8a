"""Pareto frontiers: a brute-force stair, what is surely dominated, and how often noise puts a point on it."""

import numpy as np
import pytest

from windtunnel.comparison.scaling.pareto import Point, frontier


def point(arm, cost, loss, runs=2, deviation=0.001):
    return Point(arm, cost, loss, runs, deviation, 20)


def found(points, draws=2000):
    return frontier(points, np.random.default_rng(0), draws)


def test_the_stair_is_that_of_trying_every_pair():
    draw = np.random.default_rng(3)
    points = [
        point("a", float(c), float(x))
        for c, x in zip(10 ** draw.uniform(0, 3, 40), draw.uniform(2, 3, 40), strict=True)
    ]
    for one in found(points, draws=10)["points"]:
        beaten = any(other.loss < one["loss"] and other.cost <= 1.02 * one["cost"] for other in points)
        assert one["on_stair"] == (not beaten)


def test_dominated_is_what_another_beats_beyond_both_intervals():
    near = found([point("a", 1.0, 2.0), point("b", 1.0, 2.003), point("c", 2.0, 2.02), point("d", 0.5, 2.02)])
    assert {one["arm"]: one["dominated"] for one in near["points"]} == {"a": False, "b": False, "c": True, "d": False}


def test_the_share_of_draws_is_the_probability_of_the_lower_loss():
    """Two equal costs: P(b < a) = Phi(difference / (sqrt 2 s.e.)), here Phi(-1)."""
    error = 2.0 * 0.001 / 2**0.5
    both = found([point("a", 1.0, 2.0), point("b", 1.0, 2.0 + 2**0.5 * error)], draws=20_000)
    assert both["shares"]["b"] == pytest.approx(0.159, abs=0.01)
    assert both["family"] == ["a"]
    assert both["shares"]["a"] + both["shares"]["b"] == pytest.approx(1.0)


def test_costs_within_whole_steps_are_one_cost():
    both = found([point("a", 1.0, 2.1), point("b", 1.01, 2.0)])
    assert {one["arm"]: one["on_stair"] for one in both["points"]} == {"a": False, "b": True}
