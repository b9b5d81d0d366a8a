"""A study on sets mixed by weight: part of the question, the same in every arm, with the loss of each set."""

import json
import random

import pytest

from windtunnel.comparison.engine import run_study
from windtunnel.comparison.report import render_report
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.comparison.study import load_study, save_study
from windtunnel.errors import InputError

SIZES = {"tokens": 4 * 512, "seeds": 2, "evaluation_tokens": 16_384, "trials": 3, "blocks": 2, "vocab": 300}


@pytest.fixture
def ask(tmp_path):
    draw = random.Random(0)
    for name, words in (("code", "def return if None else"), ("wiki", "wind wing lift stall drag")):
        lines = (" ".join(draw.choices(words.split(), k=9)) for _ in range(900))
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    data = tuple(f"{name}={tmp_path / name}.txt" for name in ("code", "wiki"))

    def make(**changes):
        sizes = {"preset": "smoke", "tokenizer": "bytes", **SIZES, "vocab": None}
        return StudyRequest(
            arms=("llama", "gpt3"), out=tmp_path / "study", data=data, cache=tmp_path / "cache", **{**sizes, **changes}
        )

    return make


def test_the_mixture_is_part_of_the_question(ask, tmp_path):
    plain, mixed = plan_study(ask()), plan_study(ask(mix={"code": "1", "wiki": "3"}))
    assert "mixture" not in plain.question()
    assert mixed.question()["mixture"] == {"code": 0.25, "wiki": 0.75}
    assert plain.id != mixed.id != plan_study(ask(mix={"code": "1", "wiki": "2"})).id
    save_study(mixed, tmp_path / "saved", "now")
    again, _ = load_study(tmp_path / "saved")
    assert again.mixture == mixed.mixture
    assert again.run_settings(again.arms[0], 1e-3, 1).mixture == mixed.mixture
    with pytest.raises(InputError, match=r"epochs of set 'code'.*the longest horizon"):
        plan_study(ask(mix={"code": "1", "wiki": "0"}, tokens=600 * 512))


def test_every_arm_reads_the_same_mixture_and_is_judged_by_set(ask, tmp_path):
    study = plan_study(ask(mix={"code": "1", "wiki": "3"}))
    results = run_study(study, tmp_path / "study", workers=2)
    arms = results["arms"]
    assert arms["llama"]["batch_hash"] == arms["gpt3"]["batch_hash"]
    assert set(arms["llama"]["sets"]) == {"code", "wiki"}
    files = sorted((tmp_path / "study" / "runs" / "gpt3").glob("seed-*/result.json"))
    losses = [json.loads(file.read_text())["horizons"]["1.0"]["sets"]["wiki"]["loss"] for file in files]
    assert arms["gpt3"]["sets"]["wiki"]["mean"] == pytest.approx(sum(losses) / 2)
    mixture = next(row for row in results["held_equal"] if row["what"] == "mixture")
    assert mixture["evidence"] == "code 0.25, wiki 0.75"
    page = render_report(results)
    assert "Loss by set" in page
