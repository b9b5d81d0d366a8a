"""Arms: how they are written, what is refused, and that they end up with the baseline's size."""

import pytest

from windtunnel.comparison.arms import build_arms, parse_arm
from windtunnel.comparison.presets import preset
from windtunnel.errors import InputError
from windtunnel.ledger import n_body, n_body_active

QUICK = preset("quick", "cpu")


def build(*texts, baseline=None, overrides=None, allow_gap=False):
    return build_arms(texts, baseline, QUICK, 1024, overrides or {}, lattice=8, allow_gap=allow_gap)


def test_an_arm_is_label_recipe_and_settings():
    assert parse_arm("palm") == type(parse_arm("palm"))("palm", "palm", {})
    arm = parse_arm("wide=llama:width=96,tied=true,theta=1e5")
    assert (arm.label, arm.recipe, arm.settings) == ("wide", "llama", {"width": 96, "tied": True, "theta": 1e5})


def test_a_recipe_of_ones_own_is_named_by_module_and_function():
    arm = parse_arm("mine=tests.comparison.own_lab:plain:kv_heads=2")
    assert (arm.label, arm.recipe, arm.settings) == ("mine", "tests.comparison.own_lab:plain", {"kv_heads": 2})
    assert parse_arm("tests.comparison.own_lab:plain").label == "plain"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lama", "did you mean llama"),
        ("llama:width", "name=value"),
        ("../x=llama", "label"),
        ("my lab=llama", "label"),
    ],
)
def test_a_bad_arm_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_arm(text)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (("llama",), {}, "at least one variant"),
        (("llama", "llama"), {}, "2 times"),
        (("llama", "palm"), {"baseline": "ngpt"}, "not among"),
        (("llama", "palm:wdith=3"), {}, "did you mean width"),
        (("llama", "palm:heads=7"), {}, "heads 7 does not divide"),
        (("llama", "palm:width=96"), {}, "allow-param-gap"),
        (("llama:lr_factor=2", "palm"), {}, "controls"),
        (("llama", "fast=palm:lr_factor=2"), {}, "ordinary arm"),
        (("llama", "tests.comparison.own_lab:missing"), {}, "missing"),
    ],
)
def test_impossible_arms_are_refused_before_anything_runs(texts, options, message):
    with pytest.raises(InputError, match=message):
        build(*texts, **options)


def test_every_variant_has_the_baselines_body_within_one_percent():
    arms, baseline = build("ngpt", "palm", "llama", "diff_transformer", "gpt3")
    assert baseline == "llama"
    target = next(n_body(arm.spec) for arm in arms if arm.label == "llama")
    for arm in arms:
        assert arm.matching.n_body == n_body(arm.spec)
        assert abs(n_body(arm.spec) / target - 1) <= 0.01
        assert abs(arm.matching.gap) == pytest.approx(abs(n_body(arm.spec) / target - 1))


def test_a_size_that_the_user_chose_is_left_alone():
    arms, _ = build("llama", "wide=llama:width=96", allow_gap=True)
    assert arms[1].spec.width == 96
    assert arms[1].matching.gap > 1


def test_a_control_shares_the_trials_of_the_same_architecture():
    arms, _ = build("llama", "more=llama:token_factor=1.25", "again=llama:seed_offset=100", "palm")
    assert [arm.tuned_as for arm in arms] == ["llama", "llama", "llama", "palm"]
    assert [arm.control for arm in arms] == [False, True, True, False]


def test_a_recipe_of_ones_own_brings_its_training_along():
    arms, _ = build("llama", "tests.comparison.own_lab:plain")
    assert arms[1].training.weight_decay == 0.0
    assert arms[1].packages == ["tests"]


def test_a_second_knob_gives_each_turned_variant_a_twin_of_another_width():
    strict = preset("strict", "cpu")
    arms, _ = build_arms(("llama", "palm", "diff_transformer"), None, strict, 1024, {}, lattice=8, allow_gap=False)
    twin = next(arm for arm in arms if arm.twin_of == "palm")
    assert twin.label == "palm-by-width"
    assert twin.spec.width != 64
    assert abs(twin.matching.gap) <= 0.01
    assert [arm.label for arm in arms if arm.twin_of] == ["palm-by-width"]  # diff_transformer had nothing to turn


@pytest.mark.parametrize("arm", ["mixtral", "switch", "gshard", "sparsely_gated_moe", "router_first"])
def test_experts_are_matched_by_what_a_token_meets(arm):
    arms, _ = build("llama", arm)
    target, ours = n_body(arms[0].spec), arms[1]
    assert ours.matching.n_body == n_body_active(ours.spec)
    assert abs(ours.matching.n_body / target - 1) <= 0.01
    assert ours.matching.knob in ("none", "hidden")
    assert n_body(ours.spec) > 1.3 * target


def test_experts_against_experts_are_matched_too():
    arms, _ = build("eight=mixtral", "sixteen=mixtral:experts=16", baseline="eight")
    assert n_body_active(arms[1].spec) == pytest.approx(n_body_active(arms[0].spec), rel=0.01)
    assert n_body(arms[1].spec) > 1.5 * n_body(arms[0].spec)


@pytest.mark.parametrize("recipe", ["mamba", "lru"])
def test_a_recipe_without_heads_is_turned_by_both_knobs(recipe):
    strict = preset("strict", "cpu")
    arms, _ = build_arms(("llama", recipe), None, strict, 1024, {}, lattice=8, allow_gap=False)
    turned, twin = arms[1:]
    assert (turned.matching.knob, turned.spec.width) == ("hidden", 64)
    assert twin.spec.width != 64
    assert twin.spec.width % 8 == 0
    assert all(abs(arm.matching.gap) <= 0.01 and "heads" not in arm.settings for arm in (turned, twin))
