"""One entry of results.json: every name there, JSON values only, and sentences that say what the numbers say."""

import json
import math

import numpy as np
import pytest

from windtunnel.comparison.documents import DocumentLosses
from windtunnel.comparison.headline import Question, Throughput, adjust, compare_arms
from windtunnel.comparison.horizons import Horizons
from windtunnel.comparison.verdict import Evidence

QUARTERS = (0.25, 0.5, 1.0)
NAMES = {
    "variant", "baseline", "delta_nats", "ci95", "n", "s_tok", "s_flop", "s_time", "verdict", "grade", "ci95_documents",
    "p_value", "p_holm", "ci95_simultaneous", "welch_ci95", "p_improvement", "bits_per_byte_delta", "s_targets",
    "saved", "primary", "equivalent_ci90", "n_needed", "caps", "sentence", "slope",
}  # fmt: skip
CLOCK = Throughput(log_ratio=math.log(0.9), error=0.005, blocks=8, block_cv=0.03)


def study(speed, sigma=0.01, seeds=5, seed=0, head_start=0.0):
    generator = np.random.default_rng(seed)
    tokens = np.array(QUARTERS)
    gains = speed * np.array([math.exp(head_start), math.exp(head_start / 2), 1.0])

    def arm(effective):
        return 2 + 1.2 * effective[:, None] ** -0.5 + sigma * generator.normal(size=(3, seeds))

    return Horizons.of(
        dict(zip(QUARTERS, arm(tokens * gains), strict=True)), dict(zip(QUARTERS, arm(tokens), strict=True))
    )


def compare(horizons, throughput=CLOCK, evidence=None, documents=None, **question):
    evidence = evidence or Evidence(seeds=horizons.seeds, horizons=3, tokens_per_parameter=4.2)
    entry = compare_arms(Question("ngpt", "llama", **question), horizons, evidence, documents, 400_000.0, throughput)
    return adjust([entry])[0]


def test_every_name_is_there_and_it_is_json():
    entry = compare(study(1.25))
    assert set(entry) >= NAMES
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry


@pytest.mark.parametrize("speed", [0.3, 0.8, 1.0, 1.3, 3.0, 9.0])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_no_path_leaves_a_number_that_json_refuses(speed, seeds):
    entry = compare(study(speed, seeds=seeds))
    json.dumps(entry, allow_nan=False)
    assert entry["sentence"].endswith(".")
    assert "nan" not in json.dumps(entry)
    assert "inf " not in entry["sentence"]


def test_a_win_reads_as_one():
    entry = compare(study(1.3), throughput=None)
    value, (low, high) = entry["s_tok"]["value"], entry["s_tok"]["ci95"]
    assert entry["verdict"] == "wins"
    assert entry["sentence"] == f"ngpt reaches llama's loss with {value:.2f}x fewer tokens [{low:.2f}, {high:.2f}]."
    assert entry["saved"]["tokens"] == pytest.approx(1 - 1 / value)
    assert entry["s_time"] is None
    assert entry["grade"] == "D"
    assert low < 1.3 < high


def test_a_loss_is_turned_round():
    entry = compare(study(0.8), throughput=None)
    low, high = entry["s_tok"]["ci95"]
    assert entry["verdict"] == "loses"
    assert (
        f"ngpt needs {1 / entry['s_tok']['value']:.2f}x more tokens [{1 / high:.2f}, {1 / low:.2f}]"
        in entry["sentence"]
    )


def test_flops_are_primary_where_they_differ():
    entry = compare(study(1.3), throughput=None, flop_ratio=1.2)
    assert entry["primary"] == "iso_flop"
    assert entry["s_flop"]["value"] == pytest.approx(entry["s_tok"]["value"] / 1.2)
    assert "fewer FLOPs" in entry["sentence"]
    assert "fewer tokens" in entry["sentence"]


def test_the_product_is_in_words():
    entry = compare(study(1.2))
    tokens, time = entry["s_tok"]["value"], entry["s_time"]["value"]
    assert entry["product"] == f"{tokens:.2f}x fewer tokens, 0.90x throughput => {time:.2f}x"
    assert time == pytest.approx(0.9 * tokens)


def test_a_slow_winner_is_mixed():
    entry = compare(study(1.3), throughput=Throughput(math.log(0.5), 0.01, 8, 0.02))
    assert entry["verdict"] == "mixed"
    assert entry["tracks"]["iso_time"] == "loses"
    assert "mixed" in entry["sentence"]


@pytest.mark.parametrize(("variation", "load", "said"), [(0.2, 0.5, "20 %"), (0.02, 1.5, "a load of 1.5 a core")])
def test_a_noisy_clock_has_no_say(variation, load, said):
    entry = compare(study(1.3), throughput=Throughput(math.log(0.5), 0.01, 8, variation, load))
    assert entry["verdict"] == "wins"
    assert "iso_time" not in entry["tracks"]
    assert any(said in note for note in entry["notes"])


@pytest.mark.parametrize("primary", [None, "iso_time"])
def test_one_timing_block_gives_a_ratio_without_an_interval_and_no_verdict(primary):
    entry = compare(study(1.3), throughput=Throughput(math.log(0.5), None, 1, None), primary=primary)
    assert entry["s_time"]["value"] == pytest.approx(0.5 * entry["s_tok"]["value"])
    assert entry["s_time"]["ci95"] == [None, None]
    assert entry["saved"]["time"] is not None
    assert "iso_time" not in entry["tracks"]
    assert any("one timing block gives no interval" in note for note in entry["notes"])
    json.dumps(entry, allow_nan=False)


def test_an_open_question_asks_for_seeds():
    entry = compare(study(1.01, sigma=0.03), throughput=None)
    assert entry["verdict"] == "inconclusive"
    assert f"about {entry['n_needed']} seeds" in entry["sentence"]


def test_little_noise_makes_equals_equivalent():
    entry = compare(study(1.0, sigma=0.002, seeds=6, seed=1), throughput=None)
    assert entry["verdict"] == "equivalent"
    low, high = entry["equivalent_ci90"]
    assert 1 / 1.03 < low < 1 < high < 1.03


def test_a_variant_far_behind_loses_without_a_number():
    entry = compare(study(0.3))
    assert entry["verdict"] == "loses"
    assert entry["s_tok"]["censored"]
    assert entry["s_tok"]["value"] is None
    assert "does not reach" in entry["sentence"]


def test_an_untuned_arm_is_preliminary():
    entry = compare(study(1.3), throughput=None, evidence=Evidence(seeds=5, untuned=("ngpt",)))
    assert (entry["verdict"], entry["uncapped"]) == ("preliminary", "wins")
    assert entry["sentence"].startswith("Preliminary (ngpt: best learning rate at the edge")


def test_one_horizon_still_tells_who_is_ahead():
    one = study(1.3)
    alone = Horizons((1.0,), one.baseline[2:], one.variant[2:])
    entry = compare(alone, throughput=None)
    assert entry["verdict"] == "wins, small"
    assert "lower loss" in entry["sentence"]
    assert entry["slope"]["used"] is None


def test_a_head_start_is_seen():
    assert compare(study(1.05, sigma=0.005, head_start=0.3))["head_start"]
    assert not compare(study(1.2, sigma=0.005))["head_start"]


def test_targets_are_the_horizons_that_exist():
    targets = compare(study(1.2))["s_targets"]
    assert [one["fraction"] for one in targets] == [0.25, 0.5, 1.0]
    assert all(one["value"] == pytest.approx(1.2, rel=0.1) for one in targets)


def test_documents_give_bits_and_a_wider_interval():
    horizons = study(1.2)
    generator = np.random.default_rng(2)
    weights = np.full(50, 200.0)
    hardness = generator.normal(0, 0.3, 50)

    def arm(losses):
        own = generator.normal(0, 0.1, (5, 50))
        return weights * (losses[:, None] + hardness + own - own.mean(axis=1, keepdims=True))

    documents = DocumentLosses.of(arm(horizons.variant[2]), arm(horizons.baseline[2]), weights)
    entry = compare(horizons, documents=documents)
    assert entry["bits_per_byte_delta"] == pytest.approx(entry["delta_nats"] * 10_000 / math.log(2) / 400_000, rel=0.1)
    inner, outer = entry["ci95"], entry["ci95_documents"]
    assert outer[0] < inner[0] or outer[1] > inner[1]
    assert entry["document_se"] < entry["document_se_unpaired"]


def test_more_comparisons_widen_the_verdicts_interval():
    horizons = study(1.3)
    one, four = compare(horizons), compare(horizons, comparisons=4)
    assert four["ci95"] == one["ci95"]
    assert four["ci95_simultaneous"][0] < one["ci95_simultaneous"][0]


def test_holm_is_over_all_entries():
    entries = [compare_arms(Question(str(s), "llama"), study(s), Evidence(seeds=5)) for s in (1.0, 1.3, 0.8)]
    adjusted = adjust(entries)
    assert [entry["p_holm"] >= entry["p_value"] for entry in adjusted] == [True] * 3
    assert max(entry["p_holm"] for entry in adjusted) <= 1


def test_the_same_files_give_the_same_entry():
    assert compare(study(2.0)) == compare(study(2.0))
