"""The page of claims: what it says follows from filed results alone, and every call from an interval and a figure."""

import dataclasses
import json
import math
import shlex
from pathlib import Path

import pytest

from tests.commands import check_options
from windtunnel.claims import CLAIMS, Claim, Evidence, Figure, Filed, document, judge, judged, page, read_filed
from windtunnel.claims.benches import utilisation
from windtunnel.claims.ladders import saving
from windtunnel.claims.studies import speedup
from windtunnel.errors import InputError
from windtunnel.planning.published import cases

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "claims.md"
GAIN = Figure(text="1.5x", low=1.45, high=1.55, nothing=1.0)
EQUAL = Figure(text="1", low=0.97, high=1.03, whole=True)


def claim(figure, **changes):
    base = Claim(name="c", paper="p", place="s", says="t", setting="u", quantity="q", figure=figure)
    return dataclasses.replace(base, **changes)


def ours(low, high, **changes):
    base = Evidence(value=(low + high) / 2, low=low, high=high, shown="", setting="")
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("beside_results", [False, True])
def test_a_saving_is_read_from_fits_alone_or_beside_a_ladders_results(beside_results):
    at = {"value": 1.4, "ci95": [1.2, 1.6], "compute": 6.7e12}
    arm = {"runs": {"parameters": [20_000, 900_000]}}
    fits = {"baseline": "llama", "multipliers": {"ngpt": {"at": {"largest": at}, "reasons": ["one seed"]}}}
    fits["arms"] = {"llama": arm, "ngpt": arm}
    filed = Filed("ladder.json", {"ladder": "x", "baseline": "llama", "fits": fits} if beside_results else fits)
    (found,) = saving("ngpt", "llama")(filed)
    assert (found.value, found.low, found.high, found.doubts) == (1.4, 1.2, 1.6, ("one seed",))
    assert "at 6.7e+12 FLOPs" in found.setting
    assert not list(saving("ngpt", "palm")(filed))
    assert not list(saving("hawk", "llama")(filed))
    assert not list(saving("ngpt", "llama")(Filed("ladder.json", {"ladder": "x", "baseline": "llama", "arms": {}})))


def test_the_page_is_what_the_command_writes():
    """`windtunnel claims --write docs/claims.md` makes it again after a result was filed."""
    assert PAGE.read_text(encoding="utf-8") == page(judged(CLAIMS, read_filed(RESULTS)))


@pytest.mark.parametrize(
    ("figure", "evidence", "call"),
    [
        (GAIN, ours(1.3, 1.5), "agrees"),
        (GAIN, ours(1.5, 1.9), "agrees"),
        (GAIN, ours(0.9, 1.6), "cannot tell at this size"),
        (GAIN, ours(0.95, 1.05), "disagrees"),
        (GAIN, ours(1.1, 1.3), "disagrees"),
        (GAIN, ours(1.7, 1.9), "disagrees"),
        (GAIN, ours(-math.inf, 1.2), "disagrees"),
        (GAIN, ours(1.3, 1.5, doubts=("one seed",)), "cannot tell at this size"),
        (GAIN, ours(1.3, 1.5, floor=True), "floor"),
        (EQUAL, ours(0.98, 1.02), "agrees"),
        (EQUAL, ours(0.9, 1.02), "cannot tell at this size"),
        (EQUAL, ours(1.04, 1.2), "disagrees"),
    ],
)
def test_calls(figure, evidence, call):
    assert judge(claim(figure), evidence)[0] == call


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (ours(0.95, 1.05), "No effect is seen"),
        (ours(1.1, 1.3), "smaller"),
        (ours(1.7, 1.9), "larger"),
        (ours(0.7, 0.9), "opposite"),
    ],
)
def test_a_disagreement_says_how(evidence, words):
    assert words in judge(claim(GAIN), evidence)[1]
    mirrored = dataclasses.replace(GAIN, low=1 / 1.55, high=1 / 1.45)
    inverse = dataclasses.replace(evidence, low=1 / evidence.high, high=1 / evidence.low)
    assert words in judge(claim(mirrored), inverse)[1]


def test_what_nothing_measures_stays_on_the_page():
    (one,) = judged([claim(GAIN, missing="Needs a telescope.")], [])
    assert (one.call, one.sentence, one.evidence) == ("not run", "Needs a telescope.", None)
    assert "Needs a telescope." in page([one])


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.name)
def test_every_claim_has_a_source_and_a_command_that_exists(one):
    assert all((one.paper, one.place, one.says, one.setting, one.quantity, one.figure.text))
    assert one.figure.low > -math.inf or one.figure.high < math.inf
    assert bool(one.command) != bool(one.missing)
    if one.command:
        program, *words = shlex.split(one.command)
        assert program == "windtunnel"
        check_options(words)


def test_claims_have_names_of_their_own():
    names = [one.name for one in CLAIMS]
    assert len(set(names)) == len(names)


def test_a_study_is_read_with_its_setting_and_its_grade():
    (filed,) = [one for one in read_filed(RESULTS) if one.name == "2026-11-23-demo-results.json"]
    (one,) = speedup("diff_transformer", "llama")(filed)
    comparison = next(each for each in filed.content["comparisons"] if each["variant"] == "diff_transformer")
    assert [one.low, one.high] == comparison["s_tok"]["ci95"]
    assert one.grade == comparison["grade"]
    assert f"{comparison['n']} seeds" in one.setting
    assert not list(speedup("diff_transformer", "gpt3")(filed))
    assert not list(speedup("ngpt", "llama", where=lambda settings: settings["context"] == 1024)(filed))


def test_a_bound_is_evidence_and_a_capped_verdict_is_not():
    content = json.loads((RESULTS / "2026-11-23-demo-results.json").read_text())
    (bound,) = speedup("palm", "llama")(Filed("demo", content))
    assert (bound.value, bound.low, bound.high, bound.doubts) == (None, 0.0, 1.0, ())
    content["comparisons"][0] |= {"verdict": "preliminary", "caps": ["palm: best learning rate at the edge"]}
    (capped,) = speedup("palm", "llama")(Filed("demo", content))
    assert capped.doubts == ("palm: best learning rate at the edge",)
    content["comparisons"][0] |= {"verdict": "inconclusive", "s_tok": {"value": None, "ci95": [None, None], "text": ""}}
    (unknown,) = speedup("palm", "llama")(Filed("demo", content))
    assert unknown.doubts == ("no bound on the speedup",)


def test_an_interval_that_its_study_calls_inconclusive_reaches_one():
    """Of three arms at once nGPT's gain on code is not told from none, though its own 95 % interval is above 1."""
    (filed,) = [one for one in read_filed(RESULTS) if one.name == "2026-11-24-standard-code.json"]
    comparison = next(each for each in filed.content["comparisons"] if each["variant"] == "ngpt")
    assert comparison["verdict"] == "inconclusive"
    assert comparison["s_tok"]["ci95"][0] > 1
    (one,) = speedup("ngpt", "llama")(filed)
    assert (one.low, one.high) == (1.0, comparison["s_tok"]["ci95"][1])
    gain = Figure(text="above 1x", low=1.0, nothing=1.0)
    assert judge(claim(gain), one)[0] == "cannot tell at this size"
    comparison["tracks"]["iso_token"] = "wins, small"
    (one,) = speedup("ngpt", "llama")(filed)
    assert judge(claim(gain), one)[0] == "agrees"


def test_published_utilisations_are_the_planners():
    filed = Filed("plan.json", {"cases": [case.to_json() for case in cases()]})
    (one,) = utilisation("PaLM 540B: HFU")(filed)
    assert one.value == pytest.approx(57.8, abs=0.05)


def test_the_document_is_json():
    found = judged(CLAIMS, read_filed(RESULTS))
    assert json.loads(json.dumps(document(found), allow_nan=False))["claims"][0]["name"] == CLAIMS[0].name


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_filed(tmp_path / "none")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: damaged"):
        read_filed(tmp_path)
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match="expected a JSON object"):
        read_filed(tmp_path)
