"""Ablations: parts read off two specs, models between them, steps that are impossible alone, effects, a whole study."""

import math
import random
from typing import Any

import numpy as np
import pytest
from scipy import stats

from windtunnel import recipes
from windtunnel.comparison.ablation.arms import Ablation, Pair, ablation_arms
from windtunnel.comparison.ablation.effects import effects
from windtunnel.comparison.ablation.parts import Part, between, differing, spelled, trained_with
from windtunnel.comparison.ablation.steps import conversion, removals
from windtunnel.comparison.engine import run_study
from windtunnel.comparison.presets import preset
from windtunnel.comparison.report import render_report
from windtunnel.comparison.report.ablation import ablation_section
from windtunnel.comparison.report.reading import read
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.comparison.results import assemble
from windtunnel.errors import InputError
from windtunnel.ledger import n_body_active
from windtunnel.mixers import Attention, NormalizedAttention
from windtunnel.recipes.ngpt import conversion as ngpts_conversion
from windtunnel.recipes.sizing import Training
from windtunnel.report import Prose

SIZES: dict[str, Any] = {"layers": 2, "width": 32, "context": 24, "vocab": 41}
QUICK = preset("quick", "cpu")
OTHERS = [name for name in recipes.names() if name not in ("llama", "axial_image")]


def pair(recipe: str, against: str = "llama", **sizes: Any) -> Pair:
    return Pair(Ablation(recipe, against), {**SIZES, **sizes})


def names(parts: Any) -> list[str]:
    return [part.name for part in parts]


def made(*found: str) -> list[Part]:
    return [Part(name, (name,), None, True) for name in found]


def test_the_parts_of_palm() -> None:
    felt, unfelt = pair("palm").parts()
    assert names(felt) == ["head.tied", "head.scale", "initial.scale_writes", "residual", "mixer.kv_heads"]
    assert unfelt == []
    assert felt[3].words == "residual: PreNorm to Parallel"
    assert felt[0].words == "head.tied: no to yes"


def test_the_parts_of_ngpt_are_the_steps_of_its_paper() -> None:
    """Its section 2.6, but for the projection, which follows from the residual, and the initial values."""
    felt, unfelt = pair("ngpt").parts()
    assert names(unfelt) == ["initial.scale_writes"]  # projection decides the size of weights
    assert {*names(felt), *names(unfelt)} == {
        "norm", "residual", "mixer", "mlp", "head.token_scale", "initial.scale_writes", "training"
    }  # fmt: skip
    stage = ngpts_conversion(**SIZES)[4].spec  # norms, projection, residual, attention
    taken = [part for part in (*felt, *unfelt) if part.name in ("norm", "residual", "mixer", "initial.scale_writes")]
    hidden = stage.blocks[0].mlp.hidden  # type: ignore[union-attr]
    assert pair("ngpt", hidden=hidden).spec(taken) == stage


def test_one_change_in_several_places_is_one_part() -> None:
    assert "residual.norm+norm" in names(pair("gpt3").parts()[0])


def test_what_is_not_felt_at_this_size_is_left_out() -> None:
    assert names(pair("gpt3").parts()[1]) == ["mixer.window"]
    felt, unfelt = pair("gpt3", context=300).parts()
    assert "mixer.window" in names(felt)
    assert unfelt == []


@pytest.mark.parametrize("recipe", OTHERS)
def test_no_parts_are_the_baseline_and_all_parts_are_the_recipe(recipe: str) -> None:
    """Whatever the recipe, but for the feed-forward width, which the matching turns."""
    sizes = {**SIZES, "layers": 3}
    base, variant = recipes.build("llama", **sizes), recipes.build(recipe, **sizes)
    trained = recipes.training("llama"), recipes.training(recipe)
    try:
        parts = differing(base, variant, trained)
    except InputError:
        assert len(base.layers) != len(variant.layers)
        return
    assert between(base, variant, []) == base
    whole = between(base, variant, parts).to_json()
    expected = variant.to_json()
    for one in (whole, expected):
        for block in one["blocks"]:
            if block["mlp"] is not None:
                block["mlp"]["hidden"] = 0
    assert whole == expected


LATER = [
    pytest.param(name, mode, marks=pytest.mark.slow) for name in ("gpt3", "griffin") for mode in ("remove", "path")
]


@pytest.mark.parametrize(
    ("recipe", "mode"), [("palm", "remove"), ("ngpt", "path"), ("diff_transformer", "path"), *LATER]
)
def test_arms_have_the_baselines_parameters_and_differ_by_their_parts(recipe: str, mode: Any) -> None:
    arms, baseline, record = ablation_arms(Ablation(recipe, mode=mode), QUICK, 257, {}, lattice=8, allow_gap=False)
    target = n_body_active(recipes.build("llama", layers=3, width=64, context=128, vocab=257))
    assert all(abs(n_body_active(arm.spec) / target - 1) <= 0.01 for arm in arms)
    assert len({arm.spec.fingerprint() for arm in arms}) >= len(arms) - (1 if recipe == "ngpt" else 0)  # its training
    whole = {part["name"] for part in record["parts"]}
    labels = {arm.label: set(arm.settings["parts"]) for arm in arms}
    assert baseline == (recipe if mode == "remove" else "llama")
    if mode == "remove":
        assert labels.pop(recipe) == whole
        assert labels.pop("llama") == set()
        for step in record["steps"]:
            assert labels[step["label"]] == whole - set(step["parts"])
    else:
        stages = [labels["llama"], *(labels[step["label"]] for step in record["steps"])]
        assert stages[0] == set()
        assert stages[-1] == whole
        for step, before, after in zip(record["steps"], stages, stages[1:], strict=False):
            assert after - before == set(step["parts"])
            assert before < after


def test_training_is_a_part_of_its_own() -> None:
    arms, _, _ = ablation_arms(Ablation("ngpt"), QUICK, 257, {}, lattice=8, allow_gap=False)
    found = {arm.label: arm.training for arm in arms}
    assert (found["ngpt"].weight_decay, found["ngpt"].warmup) == (0.0, 0.0)
    assert (found["without-training"].weight_decay, found["without-training"].warmup) == (None, None)
    assert (found["without-mlp"].weight_decay, found["without-mlp"].warmup) == (0.0, 0.0)
    assert found["llama"] == Training(recipes.training("llama").learning_rate)


def test_rates_begin_between_the_two_centres() -> None:
    parts = made("a", "b")
    both = Training(0.01), Training(0.04)
    assert [trained_with(both, parts[:k], 2).learning_rate for k in range(3)] == pytest.approx([0.01, 0.02, 0.04])


def test_steps_that_are_impossible_alone_are_joined_and_said() -> None:
    parts = made("a", "b", "c")

    def possible(some: Any) -> str:
        """b needs a."""
        taken = set(names(some))
        return "b needs a" if "b" in taken and "a" not in taken else ""

    steps, remarks = removals(parts, possible)
    assert [step.label for step in steps] == ["without-a+b", "without-b", "without-c"]
    assert steps[0].note == "a is impossible alone: b needs a"
    assert remarks == []
    stages = conversion([parts[1], parts[0], parts[2]], possible)
    assert [step.label for step in stages] == ["1-a", "2-b", "3-c"]
    assert stages[0].note == "before b, for b needs a"


def test_parts_that_only_work_together_are_one_step() -> None:
    parts = made("a", "b", "c")

    def possible(some: Any) -> str:
        return "a and b belong together" if len({"a", "b"} & set(names(some))) == 1 else ""

    steps, remarks = removals(parts, possible)
    assert [step.label for step in steps] == ["without-a+b", "without-c"]
    assert remarks == ["b is impossible alone: a and b belong together; it goes with a"]
    stages = conversion(parts, possible)
    assert [step.label for step in stages] == ["1-c", "2-a+b"]
    assert stages[0].note == "before a, for a and b belong together"
    assert stages[1].note == "a is impossible alone: a and b belong together"


def test_a_real_model_that_cannot_be_is_refused_by_its_parts() -> None:
    """nGPT's attention shares one scale between queries and keys, which grouped queries cannot have."""
    felt, _ = pair("ngpt", against="palm").parts()
    mixer = [part for part in felt if part.name == "mixer"]
    assert "kv_heads" in pair("ngpt", against="palm").impossible(mixer)
    arms, _, record = ablation_arms(Ablation("ngpt", "palm", "path"), QUICK, 257, {}, lattice=8, allow_gap=False)
    assert any("kv_heads" in step["note"] for step in record["steps"])
    kinds = [type(arm.spec.blocks[0].mixer) for arm in arms]  # type: ignore[attr-defined]
    assert kinds[0] is Attention
    assert kinds[-1] is NormalizedAttention


@pytest.mark.parametrize(
    ("ablation", "changes", "words"),
    [
        (Ablation("mixtral"), {}, "differs from llama in mlp alone"),
        (Ablation("llama"), {}, "differs from llama in nothing alone"),
        (Ablation("axial_image"), {}, "no places in common"),
        (Ablation("palm"), {"hidden": 64}, "leave hidden to the matching"),
        (Ablation("plam"), {}, "did you mean"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(ablation: Ablation, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ablation_arms(ablation, QUICK, 257, changes, lattice=8, allow_gap=False)


def test_values_are_spelled_in_a_few_words() -> None:
    assert spelled({"kind": "Rope", "theta": 1e4}) == "Rope"
    assert [spelled(each) for each in (None, True, 0.125, [1, 2])] == ["none", "yes", "0.125", "1, 2"]
    assert spelled({"decay": 0.0, "warm-up": None}) == "decay 0, warm-up none"


LOSSES = {
    "whole": {1: 3.0, 2: 3.1, 3: 2.9, 4: 3.05},
    "without-a": {1: 3.2, 2: 3.25, 3: 3.15, 4: 3.2},
    "without-b": {1: 3.0, 2: 3.0, 3: 3.0},
    "base": {1: 3.3, 2: 3.4, 3: 3.2, 4: 3.3},
}


def test_effects_of_removal_by_hand() -> None:
    steps = [{"label": f"without-{name}", "parts": [name], "note": ""} for name in "ab"]
    record = {"recipe": "whole", "against": "base", "mode": "remove", "parts": [], "steps": steps, "remarks": []}
    found = effects(record, LOSSES)
    first, second = found["effects"]
    pairs = np.array([-0.2, -0.15, -0.25, -0.15])
    assert first["delta"] == pytest.approx(pairs.mean())
    for level, key in ((0.95, "ci95"), (1 - 0.05 / 2, "ci95_simultaneous")):
        half = stats.t.ppf((1 + level) / 2, 3) * pairs.std(ddof=1) / 2
        assert first[key] == pytest.approx([pairs.mean() - half, pairs.mean() + half])
    assert first["p"] == pytest.approx(stats.ttest_1samp(pairs, 0).pvalue)
    assert first["p_holm"] == pytest.approx(2 * first["p"])
    assert (second["n"], second["seeds"]) == (3, pytest.approx([0.0, 0.1, -0.1]))
    assert found["total"]["delta"] == pytest.approx(-0.2875)


def test_effects_of_a_conversion_are_from_stage_to_stage() -> None:
    steps = [{"label": label, "parts": [label], "note": ""} for label in ("without-a", "whole")]
    record = {"recipe": "x", "against": "base", "mode": "path", "parts": [], "steps": steps, "remarks": []}
    found = effects(record, LOSSES)
    assert [(one["with"], one["without"]) for one in found["effects"]] == [
        ("without-a", "base"),
        ("whole", "without-a"),
    ]
    increments = sum(one["delta"] for one in found["effects"])
    assert increments == pytest.approx(found["cumulative"][-1]["delta"])
    assert found["cumulative"][-1]["delta"] == pytest.approx(found["total"]["delta"])


def test_a_step_without_runs_is_left_out() -> None:
    steps = [{"label": label, "parts": [label], "note": ""} for label in ("without-a", "without-c")]
    record = {"recipe": "whole", "against": "base", "mode": "remove", "parts": [], "steps": steps, "remarks": []}
    found = effects(record, LOSSES, untuned=["whole", "without-c"])["effects"]
    assert [one["label"] for one in found] == ["without-a"]
    assert found[0]["untuned"] == ["whole"]


@pytest.mark.parametrize(
    ("seeds", "untuned", "said", "unsaid"),
    [
        (4, [], ["a help beyond doubt"], ["no claim", "preliminary", "seeds"]),
        (4, ["whole"], ["No part's effect", "interval of a lies beside 0", "on whole is preliminary"], ["seeds"]),
        (2, [], ["No part's effect", "A claim needs 3 seeds"], ["preliminary"]),
    ],
)
def test_a_page_says_why_an_interval_beside_zero_claims_nothing(
    seeds: int, untuned: list[str], said: list[str], unsaid: list[str]
) -> None:
    steps = [{"label": f"without-{name}", "parts": [name], "note": ""} for name in "ab"]
    record = {"recipe": "whole", "against": "base", "mode": "remove", "steps": steps, "remarks": []}
    record["parts"] = [{"name": name, "before": 0, "after": 1} for name in "ab"]
    losses = {arm: dict(list(own.items())[:seeds]) for arm, own in LOSSES.items()}
    section = ablation_section(read({"ablation": effects(record, losses, untuned)}))
    assert section is not None
    first = section.parts[0]
    assert isinstance(first, Prose)
    text = str(first.paragraphs[0])
    assert [words for words in said if words not in text] == []
    assert [words for words in unsaid if words in text] == []


def test_a_whole_ablation_small(tmp_path: Any) -> None:
    draw = random.Random(0)
    words = ["the", "wind", "carries", "a", "model", "over", "tokens"]
    (tmp_path / "my.txt").write_text("\n".join(" ".join(draw.choices(words, k=12)) for _ in range(2000)))
    request = StudyRequest(
        arms=(),
        ablation=Ablation("diff_transformer", mode="path"),
        out=tmp_path / "study",
        data=(tmp_path / "my.txt",),
        preset="smoke",
        settings={"layers": 1, "width": 16, "context": 32},
        tokens=4 * 256,
        seeds=2,
        trials=1,
        evaluation_tokens=512,
        blocks=2,
        cache=tmp_path / "cache",
    )
    study = plan_study(request)
    assert not (tmp_path / "study").exists()
    results = run_study(study, tmp_path / "study", workers=1)
    assert results["title"] == "llama to diff_transformer, step by step"
    found = results["ablation"]
    assert len(found["effects"]) == len(found["steps"]) == 2
    for one in found["effects"]:
        ours, theirs = (results["arms"][one[side]]["loss"]["mean"] for side in ("with", "without"))
        assert one["delta"] == pytest.approx(ours - theirs)
        assert math.isfinite(one["p_holm"])
    assert plan_study(request).id == study.id  # the same command goes on
    assert assemble(tmp_path / "study")["ablation"] == found
    page = render_report(results)
    assert 'id="ablation"' in page
    assert "The way from llama to diff_transformer" in page
