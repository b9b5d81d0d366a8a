"""Studies in which arms also train as their papers did."""

import json

import pytest

from tests.comparison.test_study import corpus  # noqa: F401 - the fixture
from windtunnel import recipes
from windtunnel.comparison.engine import planned_tokens, run_study
from windtunnel.comparison.published import with_papers
from windtunnel.comparison.request import plan_study
from windtunnel.comparison.study import load_study, save_study
from windtunnel.errors import InputError
from windtunnel.selftest.small import request


@pytest.fixture
def study(corpus, tmp_path):  # noqa: F811
    return plan_study(request(corpus, tmp_path / "study", "llama", "palm", "gpt3", rules="paper", seeds=2))


def test_every_arm_with_a_paper_has_a_twin(study):
    assert [arm.label for arm in study.arms] == ["llama", "palm", "gpt3", "palm-paper", "gpt3-paper"]
    common, paper = study.arm("palm"), study.arm("palm-paper")
    assert paper.spec == common.spec
    assert paper.tuned_as == "palm-paper"
    assert any("section 5" in warning for warning in paper.warnings)
    assert study.rule(paper, 6.0).centre == 0.01
    assert study.rule(study.arm("gpt3-paper"), 6.0).centre == study.rule(study.arm("gpt3"), 6.0).centre


def test_the_twin_trains_by_its_paper_on_the_same_tokens(study):
    palm, common = (study.run_settings(study.arm(label), 0.02, 1) for label in ("palm-paper", "palm"))
    assert (palm.optimiser, palm.schedule, palm.z_loss, palm.cooldown) == ("adafactor", "rsqrt", 1e-4, 0.0)
    assert palm.ramp == recipes.paper("palm").settings["ramp"]
    assert (palm.learning_rate, palm.seed, palm.tokens, palm.horizons) == (0.02, 1, common.tokens, common.horizons)
    assert common.optimiser == "adamw"
    trial = study.trial_settings(study.arm("palm-paper"), 0.02, 0.5)
    assert (trial.optimiser, trial.tokens) == ("adafactor", common.tokens // 2)


def test_a_cosine_has_a_run_for_each_horizon(study):
    arm = study.arm("gpt3-paper")
    runs = study.all_settings(arm, 1e-3, 2)
    assert list(runs) == ["seed-2", "horizon-0.5/seed-2"]
    assert [each.horizons for each in runs.values()] == [(1.0,), (1.0,)]
    assert runs["horizon-0.5/seed-2"].tokens * 2 == runs["seed-2"].tokens
    assert runs["seed-2"].schedule == "cosine"
    assert list(study.all_settings(study.arm("palm-paper"), 1e-3, 2)) == ["seed-2"]
    assert planned_tokens(study)["gpt3-paper"] > planned_tokens(study)["gpt3"]  # half a run more, no branch


def test_it_is_registered_and_read_back(study, tmp_path):
    save_study(study, tmp_path / "study", "now")
    again, _ = load_study(tmp_path / "study")
    assert again.id == study.id
    assert again.run_settings(again.arm("palm-paper"), 0.1, 1) == study.run_settings(study.arm("palm-paper"), 0.1, 1)
    question = json.loads((tmp_path / "study" / "study.json").read_text())["question"]
    assert ["published" in arm for arm in question["arms"]] == [False, False, False, True, True]


def test_what_cannot_be_is_refused(study):
    with pytest.raises(InputError, match="common or paper"):
        with_papers(study.arms, "papers")
    with pytest.raises(InputError, match=r"no arm's recipe says how its paper trained; .*palm"):
        with_papers([study.arm("llama")], "paper")
    assert with_papers(study.arms, "common") == list(study.arms)


@pytest.mark.slow
def test_a_whole_study_says_which_training_each_arm_had(study, tmp_path):
    results = run_study(study, tmp_path / "study", workers=2)
    assert results["settings"]["settings"] == "paper"
    assert {label: arm["training"] for label, arm in results["arms"].items()} == {
        "llama": "common", "palm": "common", "gpt3": "common", "palm-paper": "paper", "gpt3-paper": "paper"
    }  # fmt: skip
    assert results["arms"]["palm-paper"]["own_settings"]["optimiser"][:2] == ["adamw", "adafactor"]
    assert set(results["arms"]["gpt3-paper"]["horizons"]) == {"0.5", "1"}
    assert {row["variant"] for row in results["comparisons"]} == {"palm", "gpt3", "palm-paper", "gpt3-paper"}
    folder = tmp_path / "study" / "runs"
    record = json.loads((folder / "palm-paper" / "seed-1" / "run.json").read_text())
    assert record["identity"]["settings"]["optimiser"] == "adafactor"
    assert (folder / "gpt3-paper" / "horizon-0.5" / "seed-2" / "result.json").is_file()
    rules = {row["what"]: row["rule"] for row in results["held_equal"]}
    assert "palm-paper" in rules["optimiser"]
    assert "DIFFERENT" not in rules["training tokens and their order"]
