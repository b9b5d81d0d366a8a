"""Matching by one knob, on the protocol's matched designs written as formulas and on real models."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel import recipes
from windtunnel.comparison.arms import build_arms
from windtunnel.comparison.matching import Inner, Shape, match, match_by_width
from windtunnel.comparison.presets import preset
from windtunnel.errors import InputError
from windtunnel.ledger import n_body_active

TINY = Shape(width=64, layers=3, heads=4, hidden=172)


def gated(extra=0):
    """Body of a pre-norm decoder with a gated MLP; `extra` parameters per layer in the mixer."""

    def count(s):
        d, f = s["width"], s["hidden"]
        return s["layers"] * (4 * d * d + 3 * d * f + 2 * d + extra) + d

    return count


def plain(s):
    """The same with a two-matrix MLP."""
    d, f = s["width"], s["hidden"]
    return s["layers"] * (4 * d * d + 2 * d * f + 2 * d) + d


def test_a_plain_mlp_of_4d_equals_a_gated_one_of_8d_over_3():
    target = plain({"width": 96, "layers": 4, "heads": 4, "hidden": 384})
    found = match(gated(), Shape(width=96, layers=4, heads=4, hidden=384), target)
    assert found.settings["hidden"] == 256
    assert found.gap == 0
    assert found.knob == "hidden"


def test_an_equal_start_is_left_alone():
    found = match(gated(40), TINY, gated()(TINY.settings()))
    assert found.knob == "none"
    assert found.settings == TINY.settings()


def test_a_tiny_model_gets_a_finer_lattice():
    target = gated()(TINY.settings())
    found = match(gated(64 * 3 * 8), TINY, target)
    assert (found.knob, found.value, found.gap) == ("hidden", 164, 0.0)


def test_the_gpu_lattice_is_64_where_it_is_fine_enough():
    start = Shape(width=1024, layers=12, heads=16, hidden=2816)
    target = gated()(start.settings())
    found = match(gated(500_000), start, target, lattice=64)
    assert found.value % 64 == 0
    assert abs(found.gap) <= 0.01


def test_the_inner_width_comes_second():
    start = Shape(width=64, layers=4, heads=4, hidden=96)

    def count(s):
        return s["layers"] * (3 * 64 * s.get("inner", 128) + 3 * 64 * s["hidden"])

    target = start.layers * (3 * 64 * 64 + 3 * 64 * 96)
    found = match(count, start, target, inner=Inner("inner", 128, 8), knobs=("inner",))
    assert found.settings["inner"] == 64
    assert found.knob == "inner"


def test_width_keeps_the_head_size_and_the_ratio():
    start = Shape(width=256, layers=6, heads=16, hidden=688)
    target = gated()(start.at_width(320, 8).settings())
    found = match_by_width(gated(), start, target)
    assert found.knob == "width"
    assert found.settings["width"] == 320
    assert found.settings["heads"] == 20
    assert found.settings["hidden"] / 320 == pytest.approx(688 / 256, rel=0.02)


def test_layers_come_in_whole_periods():
    start = Shape(width=64, layers=6, heads=4, hidden=172, period=3)
    target = gated()(Shape(width=64, layers=9, heads=4, hidden=172).settings())
    found = match(gated(), start, target, knobs=("layers",))
    assert found.settings["layers"] == 9


def test_the_second_knob_changes_the_width_on_a_tiny_model():
    found = match_by_width(gated(4000), TINY, gated()(TINY.settings()))
    assert found.settings["width"] != TINY.width
    assert found.settings["width"] // found.settings["heads"] == TINY.head_width
    assert abs(found.gap) <= 0.01


def test_what_cannot_be_matched_is_refused_with_the_way_out():
    target = gated()(TINY.settings())
    with pytest.raises(InputError, match=r"2 %.*registered .*nearest .*hidden") as refusal:
        match(gated(10**7), TINY, target)
    assert f"{target:,}" in str(refusal.value)
    allowed = match(gated(10**7), TINY, target, allow_gap=True)
    assert "unpriced" in allowed.warning


def test_between_one_and_two_percent_warns():
    start = Shape(width=64, layers=3, heads=4, hidden=172)
    found = match(lambda s: 1000 if s["hidden"] < 172 else 1015, start, 1000 - 15, knobs=("hidden",))
    assert 0.01 < abs(found.gap) <= 0.02
    assert found.warning


@given(
    st.integers(2, 8),
    st.sampled_from([32, 64, 128, 256]),
    st.floats(-0.25, 0.6),
)
@settings(max_examples=60)
def test_a_match_is_within_one_percent_and_inside_the_guards(layers, width, share):
    start = Shape(width=width, layers=layers, heads=4, hidden=8 * round(8 * width / 24))
    target = gated()(start.settings())
    extra = int(share * target / layers / 2)
    found = match(gated(extra), start, target)
    assert abs(found.gap) <= 0.01
    assert found.n_body == gated(extra)(found.settings)
    assert 1.4 <= found.settings["hidden"] / found.settings["width"] <= 6
    assert found.settings["width"] // found.settings["heads"] == start.head_width
    assert width / 2 <= found.settings["width"] <= 2 * width
    assert layers / 2 <= found.settings["layers"] <= 2 * layers


def test_few_models_are_built():
    calls = []

    def count(s):
        calls.append(s)
        return gated(2000)(s)

    match(count, TINY, gated()(TINY.settings()))
    assert len(calls) < 60


@pytest.mark.parametrize("name", [name for name in recipes.names() if name != "llama"])
def test_every_recipe_meets_the_baseline_on_a_tiny_model(name):
    (baseline, variant), _ = build_arms(
        ["llama", name], None, preset("quick", "cpu"), 1024, {}, lattice=8, allow_gap=False
    )
    assert variant.matching.knob in ("none", "hidden")
    assert abs(variant.matching.gap) <= 0.01
    assert variant.matching.gap == pytest.approx(
        n_body_active(variant.spec) / n_body_active(baseline.spec) - 1, abs=1e-12
    )
