"""The first-match table of words, caps, grades and what would change them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.comparison.verdict import Evidence, decide, grade, primary_track, seeds_needed, time_refusal, track_word
from windtunnel.statistics import Interval

MARGIN = math.log(1.03)
GOOD = Evidence(seeds=5, horizons=3, tokens_per_parameter=25, second_knob=True)


def interval(low, high):
    return Interval((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.04, 0.1, "wins"),
        (0.01, 0.1, "wins, small"),
        (0.001, 0.02, "wins, small"),
        (-0.1, -0.04, "loses"),
        (-0.1, -0.01, "loses, small"),
        (-0.02, 0.02, "equivalent"),
        (-0.02, 0.05, "inconclusive"),
        (-math.inf, math.inf, "inconclusive"),
        (-math.inf, -0.5, "loses"),
    ],
)
def test_the_first_match_wins(low, high, word):
    assert track_word(interval(low, high), interval(low, high), MARGIN) == word


def test_equivalence_uses_the_narrower_interval():
    wide, narrow = interval(-0.035, 0.02), interval(-0.028, 0.015)
    assert track_word(wide, narrow, MARGIN) == "equivalent"


@given(st.floats(-1, 1), st.floats(0, 1))
def test_swapping_the_arms_swaps_the_word(centre, half):
    swapped = {"wins": "loses", "wins, small": "loses, small", "loses": "wins", "loses, small": "wins, small"}
    one, other = Interval(centre, centre - half, centre + half), Interval(-centre, -centre - half, -centre + half)
    word = track_word(one, one, MARGIN)
    assert track_word(other, other, MARGIN) == swapped.get(word, word)


def words(evidence, **tracks):
    intervals = {name: interval(*ends) for name, ends in tracks.items()}
    return decide("iso_token", intervals, intervals, MARGIN, evidence, needed=17)


def test_opposite_tracks_are_mixed():
    found, by_track = words(GOOD, iso_token=(0.1, 0.2), iso_time=(-0.3, -0.1))
    assert found.word == "mixed"
    assert by_track == {"iso_token": "wins", "iso_time": "loses"}


def test_an_undecided_clock_does_not_mix():
    assert words(GOOD, iso_token=(0.1, 0.2), iso_time=(-0.3, 0.1))[0].word == "wins"


def test_the_other_knob_or_scale_can_mix():
    assert words(Evidence(seeds=5, second_knob=False), iso_token=(0.1, 0.2))[0].word == "mixed"
    assert words(Evidence(seeds=5, scales_agree=False), iso_token=(0.1, 0.2))[0].word == "mixed"


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (Evidence(seeds=5, untuned=("ngpt",)), "edge"),
        (Evidence(seeds=2), "2 seeds"),
        (Evidence(seeds=5, parameter_gap=-0.03), "-3.0 %"),
        (Evidence(seeds=5, self_test_failed=True), "A/A"),
        (Evidence(seeds=5, weak_baseline=True), "reference"),
        (Evidence(seeds=5, swept=False), "sweep"),
    ],
)
def test_caps_make_it_preliminary_and_say_why(evidence, reason):
    found, _ = words(evidence, iso_token=(0.1, 0.2))
    assert (found.word, found.uncapped) == ("preliminary", "wins")
    assert reason in found.caps[0]


def test_a_cap_does_not_lift_an_open_question():
    found, _ = words(Evidence(seeds=2), iso_token=(-0.1, 0.2))
    assert found.word == "inconclusive"
    assert found.n_needed == 17


def test_one_seed_has_no_verdict():
    found, _ = words(Evidence(seeds=1), iso_token=(-math.inf, math.inf))
    assert (found.word, found.grade) == ("no verdict", "E")


def test_seeds_are_only_asked_for_where_nothing_was_seen():
    assert words(GOOD, iso_token=(0.1, 0.2))[0].n_needed is None
    assert "about 17 seeds" in words(GOOD, iso_token=(-0.1, 0.2))[0].would_change


def test_grades():
    assert grade(Evidence(seeds=1)) == "E"
    assert grade(Evidence(seeds=5, swept=False)) == "E"
    assert grade(Evidence(seeds=3)) == "D"
    assert grade(Evidence(seeds=5, horizons=3, tokens_per_parameter=4, second_knob=True)) == "D"
    assert grade(GOOD) == "C"
    larger = {"seeds": 5, "horizons": 3, "tokens_per_parameter": 25, "second_knob": True, "scales": 3, "flop_range": 8}
    assert grade(Evidence(**larger)) == "B"
    assert grade(Evidence(**larger, trend_against=True)) == "C"
    assert grade(Evidence(**larger, datasets=2, ablated=True, second_implementation=True)) == "A"


def test_the_primary_track_follows_the_flops():
    assert primary_track(1.0) == primary_track(0.985) == "iso_token"
    assert primary_track(1.03) == primary_track(0.9) == "iso_flop"


def test_a_noisy_clock_is_refused():
    assert time_refusal(0.1) == ""
    assert "14 %" in time_refusal(0.14)


def test_a_crowded_machine_is_refused():
    assert time_refusal(0.05, 1.0) == ""
    assert "1.6 a core" in time_refusal(0.05, 1.6)


def test_seeds_needed_see_the_observed_effect():
    estimate = Interval(0.02, 0.02 - 0.05, 0.02 + 0.05)
    needed = seeds_needed(estimate, 5, 0.01)
    deviation = 0.05 / 2.776 * math.sqrt(5)
    assert needed == pytest.approx(((1.96 + 0.84) * deviation / 0.02) ** 2, rel=0.15)
    assert seeds_needed(estimate, 5, 0.04) < needed
    assert seeds_needed(estimate, 5, 0.01, alpha=0.05 / 4) > needed
    assert seeds_needed(Interval(0.0, 0.0, 0.0), 5, 0.01) is None
    assert seeds_needed(Interval(0.0, -math.inf, math.inf), 1, 0.01) is None
