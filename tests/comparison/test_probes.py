"""Probes: which runs they are, what they find, and what is said of it."""

import json

import numpy as np
import pytest

from windtunnel.comparison.engine import planned_tokens, run_study
from windtunnel.comparison.probe_results import probe_caveats, probe_results
from windtunnel.comparison.probes import PROBES, probe_folder
from windtunnel.comparison.report import render_report
from windtunnel.comparison.request import plan_study
from windtunnel.comparison.results import assemble
from windtunnel.errors import InputError
from windtunnel.selftest.small import request, written


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return written(tmp_path_factory.mktemp("corpus"))


def planned(corpus, folder, *arms, **changes):
    return plan_study(request(corpus, folder, *arms, **changes))


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "first"
    arms = ("llama", "palm", "hot=llama:lr_factor=2")
    study = planned(corpus, folder, *arms, probes=("noise", "batch"), seeds=2, batch_size=4)
    return folder, study, run_study(study, folder, workers=2)


def test_a_probe_changes_one_thing_of_the_run_that_ends_at_d(corpus, tmp_path):
    study = planned(corpus, tmp_path / "x", "llama", "palm", probes=("noise", "batch"), seeds=3, batch_size=4)
    arm = study.arm("llama")
    runs = study.all_settings(arm, 0.01, 3)
    data, initial, half, double = (runs[probe_folder(probe, 3)] for probe in (*PROBES["noise"], *PROBES["batch"]))
    assert (data.seed, data.data_seed) == (1, 3)
    assert (initial.seed, initial.data_seed) == (3, 1)
    assert (half.batch_size, double.batch_size) == (2, 8)
    assert half.learning_rate == pytest.approx(0.01 / 2**0.5)
    assert double.learning_rate == pytest.approx(0.01 * 2**0.5)
    assert {one.tokens for one in (data, initial, half, double)} == {study.design.tokens}
    assert {one.horizons for one in (data, initial, half, double)} == {(1.0,)}
    assert not [name for name in study.all_settings(study.arm("palm"), 0.01, 3) if "data" in name]
    plain = planned(corpus, tmp_path / "x", "llama", "palm", seeds=3, batch_size=4)
    assert plain.id != study.id
    assert planned_tokens(plain)["palm"] < planned_tokens(study)["palm"] < planned_tokens(study)["llama"]


def test_the_spread_of_every_probe_is_that_of_its_runs(finished):
    folder, _, results = finished
    read = {
        name: [
            json.loads((folder / "runs" / "llama" / f"probe-{name}" / f"seed-{seed}" / "result.json").read_text())
            for seed in (1, 2)
        ]
        for name in ("data", "initial-values")
    }
    for name, runs in read.items():
        losses = [run["horizons"]["1.0"]["loss"] for run in runs]
        assert results["probes"]["noise"][name]["deviation"] == pytest.approx(np.std(losses, ddof=1))
    both = results["arms"]["llama"]["loss"]["seeds"]
    assert results["probes"]["noise"]["both"]["deviation"] == pytest.approx(np.std(both, ddof=1))
    # with the first seed nothing is changed: a run of its own ends where the study's branch does
    for runs in read.values():
        assert runs[0]["horizons"]["1.0"]["loss"] == pytest.approx(both[0], abs=1e-6)


def test_differences_at_other_batches_are_of_arms_that_follow_the_rules(finished):
    folder, _, results = finished
    rows = results["probes"]["batch"]
    assert [(row["variant"], row["batch_size"]) for row in rows] == [("palm", 4), ("palm", 2), ("palm", 8)]
    assert rows[0]["delta_nats"] == pytest.approx(results["comparisons"][0]["delta_nats"])
    assert json.dumps(assemble(folder), sort_keys=True) == json.dumps(results, sort_keys=True)
    page = render_report(results)
    assert "What the noise of" in page
    assert "The difference at other batches" in page


def test_a_sign_that_turns_with_the_batch_is_a_caveat(finished):
    _, study, _ = finished
    own = {"variant": "palm", "batch_size": 4, "delta_nats": 0.1, "ci95": [0.05, 0.15], "n": 2}
    turned = {**own, "batch_size": 8, "delta_nats": -0.1, "ci95": [-0.15, -0.05]}
    unsure = {**own, "batch_size": 2, "delta_nats": -0.1, "ci95": [-0.25, 0.05]}
    (said,) = probe_caveats(study, {"probes": {"batch": [own, unsure, turned]}})
    assert "palm: at a batch of 8" in said
    assert probe_caveats(study, {}) == []


def test_what_has_not_finished_is_left_out(finished, tmp_path):
    _, study, _ = finished
    found = probe_results(study, tmp_path, {"llama": {1: 3.0}, "palm": {}, "hot": {}})
    assert found == {"noise": {}, "batch": []}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"probes": ("nois",)}, "unknown probe 'nois'; did you mean noise"),
        ({"probes": ("noise",), "seeds": 1}, "no spread"),
        ({"probes": ("batch",), "seeds": 2, "batch_size": 3}, "a batch of 3 has no half"),
    ],
)
def test_probes_that_cannot_be_are_refused(corpus, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        planned(corpus, tmp_path / "x", "llama", "palm", **changes)
