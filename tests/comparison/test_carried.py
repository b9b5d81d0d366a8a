"""Studies under muP: every arm is carried if it passes the coordinate check, and refused with what fails if not."""

import random
from dataclasses import replace
from typing import Any

import pytest

from windtunnel import recipes
from windtunnel.comparison import carried
from windtunnel.comparison.arms import build_arms
from windtunnel.comparison.presets import preset
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.comparison.study import load_study, save_study
from windtunnel.errors import InputError
from windtunnel.mup import MuP
from windtunnel.training.coordinates import Plan, Result, Site, check


@pytest.fixture
def request_of(tmp_path: Any) -> Any:
    draw = random.Random(0)
    words = ["the", "wind", "carries", "a", "model", "over", "tokens"]
    (tmp_path / "my.txt").write_text("\n".join(" ".join(draw.choices(words, k=12)) for _ in range(800)))

    def make(*arms: str, **changes: Any) -> StudyRequest:
        sizes = {"layers": 1, "width": 64, "context": 32}
        base = {"arms": arms, "out": tmp_path / "study", "data": (tmp_path / "my.txt",), "cache": tmp_path / "cache"}
        small = {"preset": "smoke", "tokens": 4 * 256, "evaluation_tokens": 512, "settings": sizes, "mup": 16}
        return StudyRequest(**{**base, **small, **changes})

    return make


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Stands in for the training of the check: `gpt3` fails it, everything else passes."""
    plans: list[Plan] = []

    def stand_in(plan: Plan, *_: Any) -> Result:
        plans.append(plan)
        rising = [[float(width if plan.recipe == "gpt3" else 1.0) for width in plan.widths]]
        return Result(plan, "mup", (Site("blocks.0.mlp", rising, rising),))  # type: ignore[arg-type]

    monkeypatch.setattr(carried, "check", stand_in)
    return plans


def test_arms_that_pass_are_carried(request_of: Any, checked: list[Plan], tmp_path: Any) -> None:
    study = plan_study(request_of("llama", "palm"))
    for arm in study.arms:
        assert isinstance(arm.spec.initial, MuP)
        assert (arm.spec.initial.base, arm.spec.width) == (16, 64)
        assert study.rule(arm, 5.0).centre == pytest.approx(recipes.training(arm.recipe).learning_rate_at(16))
    assert [(plan.recipe, plan.widths) for plan in checked] == [("llama", (16, 32, 64)), ("palm", (16, 32, 64))]
    save_study(study, tmp_path / "study", "now")
    assert load_study(tmp_path / "study")[0].arms == study.arms
    assert plan_study(request_of("llama", "palm")).id == study.id
    assert len(checked) == 2  # a study that is registered has passed
    assert plan_study(request_of("llama", "palm", mup=None, out=tmp_path / "other")).id != study.id


def test_an_arm_that_fails_is_refused_with_the_reason(request_of: Any, checked: list[Plan]) -> None:
    with pytest.raises(InputError, match=r"arm 'gpt3' fails the coordinate check from width 16: .*width\^1.00"):
        plan_study(request_of("llama", "gpt3"))


def test_an_arm_without_a_rule_is_refused_before_anything_is_trained(request_of: Any, checked: list[Plan]) -> None:
    with pytest.raises(InputError, match="unit sphere"):
        plan_study(request_of("llama", "ngpt"))
    assert checked == []


def test_the_check_is_of_the_arms_own_settings() -> None:
    design = replace(preset("quick", "cpu"), width=256)
    arms, _ = build_arms(["llama", "grouped=llama:kv_heads=2"], None, design, 257, {}, lattice=8, allow_gap=False)
    plan = carried.plan_of(arms[1], 64)
    assert plan.widths == (64, 128, 256)
    hidden = arms[1].settings["hidden"]
    assert plan.settings == {"kv_heads": 2, "hidden": max(8, round(hidden / 4 / 8) * 8)}
    assert check(replace(plan, widths=(16, 32, 64), seeds=1, steps=1)).sites
