"""Evidence of long-context experiments, from documents as the commands file them; no figure here is measured."""

import math

import pytest

from windtunnel.claims import CLAIMS, Filed, judged
from windtunnel.claims.lengths import against, past_length, rescaled, trained_further
from windtunnel.claims.tasks import accuracy, setting, solved, steps, times_longer


def method(name, nats):
    """Points at 1, 4 and 8 times the length."""
    points = [
        {"multiple": multiple, "last": {"value": value}} for multiple, value in zip((1.0, 4.0, 8.0), nats, strict=True)
    ]
    return {"method": name, "points": points}


def asked(*runs):
    """An evaluation of runs: (label, trained length, methods), in the order of seeds."""
    arms = {label: base for label, base, _ in runs}
    task = {
        "task": "length",
        "arms": [{"label": label, "base": base} for label, base in arms.items()],
        "runs": [{"methods": methods} for _, _, methods in runs],
    }
    return {"runs": [{"label": label} for label, _, _ in runs], "tasks": [task]}


@pytest.fixture
def length():
    """Two seeds of RoPE at two lengths, extended from the first by two methods."""
    rope = [("RoPE 64", 64, [method("as it is", (2.0 + s, 2.5 + s, 3.0 + s))]) for s in (0.0, 0.1)]
    longer = [("RoPE 256", 256, [method("as it is", (1.9, 2.0 + s, 2.6))]) for s in (0.0, 0.2)]
    originals = [
        ("RoPE 64", 64, [method("as it is", (2.0, 2.5, 3.0)), method("linear", (2.0, 2.2 + s, 2.9))])
        for s in (0.0, 0.1)
    ]
    tuned = [
        (f"{name}, trained further", 64, [method("as it is", (2.0, 1.9 + s, far))])
        for name, far in (("linear", 2.4), ("yarn", 2.3))
        for s in (0.0, 0.05)
    ]
    content = {
        "benchmark": "length",
        "settings": {"layers": 3, "width": 64, "tokens": 800_000, "tuned": 100_000, "factor": 4.0},
        "length": asked(*rope, *longer),
        "scaling": asked(*originals, *tuned),
    }
    return Filed("length.json", content)


def test_every_trained_length_is_a_line_of_its_own(length):
    near, far = past_length("RoPE", 4.0)(length)
    assert near.value == pytest.approx(0.5)
    assert (near.low, near.high) == (pytest.approx(0.5), pytest.approx(0.5))  # both seeds lose as much
    assert far.value == pytest.approx(0.2)
    assert far.high - far.value == pytest.approx(12.706 * 0.1, rel=1e-3)  # t(0.975, 1) times the error
    assert "trained at 256 tokens, 2 seeds" in far.setting
    assert not list(past_length("RoPE", 16.0)(length))
    assert not list(past_length("Hawk", 4.0)(length))


def test_what_rescaling_and_training_give_is_paired_by_seeds(length):
    (untrained,) = rescaled("linear", 4.0)(length)
    assert untrained.value == pytest.approx(0.25)
    (further,) = rescaled("linear", 8.0, over=4.0)(length)
    assert further.value == pytest.approx(2.9 - 2.25)
    (trained,) = trained_further("linear", 4.0)(length)
    assert trained.value == pytest.approx(1.925 - 2.0)
    assert "100k more bytes at 4 times the length by linear" in trained.setting
    (both,) = against("yarn", "linear", 8.0)(length)
    assert both.value == pytest.approx(-0.1)


def test_one_seed_carries_no_claim(length):
    for part in ("length", "scaling"):
        content = length.content[part]
        keep = [k for k, run in enumerate(content["runs"]) if run["label"] == "RoPE 64"][:1]
        content["runs"] = [content["runs"][k] for k in keep]
        content["tasks"][0]["runs"] = [content["tasks"][0]["runs"][k] for k in keep]
    (one,) = past_length("RoPE", 4.0)(length)
    assert one.doubts == ("one seed",)
    assert (one.low, one.high) == (-math.inf, math.inf)


def arm(accuracies, far, solved_at):
    def scores(values):
        return {"mean": sum(values) / len(values), "ci95": [min(values), max(values)], "seeds": values}

    rungs = [
        {"label": "as trained", "accuracy": scores(accuracies)},
        {"label": "length=256", "accuracy": scores(far)},
        {"label": "needles=6", "accuracy": scores(far)},
    ]
    known = sorted(math.inf if step is None else step for step in solved_at)[1]
    median = None if known == math.inf else known
    task = {"accuracy": scores(accuracies), "rungs": rungs, "solved_at": solved_at, "median_steps": median}
    return {"n_body": 50_000, "task": {**task, "steps": 1000}}


@pytest.fixture
def induction():
    """A transformer and a recurrence, three seeds each."""
    arms = {
        "llama": arm([1.0, 1.0, 0.99], [0.3, 0.2, 0.4], [100, 200, 200]),
        "hawk": arm([0.99, 1.0, 1.0], [0.9, 0.95, 0.8], [400, 400, None]),
    }
    comparison = {"variant": "hawk", "baseline": "llama", "verdict": "wins", "caps": []}
    content = {
        "data": {"name": "induction (vocab=8)", "task": {"length": 64, "needles": 4, "asked": 2}},
        "settings": {"tokens": 2_000_000, "seeds": [1, 2, 3]},
        "baseline": "llama",
        "arms": arms,
        "comparisons": [comparison],
    }
    return Filed("induction.json", content)


def test_accuracy_is_compared_at_a_rung_of_the_ladder(induction):
    (trained,) = accuracy("induction", "hawk", "mqa_transformer", "llama")(induction)
    assert trained.value == pytest.approx(0.0, abs=1e-12)
    (far,) = accuracy("induction", "hawk", "llama", rung=times_longer(4))(induction)
    assert far.value == pytest.approx((0.6 + 0.75 + 0.4) / 3)
    assert "asked at length=256, hawk against llama" in far.setting
    assert not list(accuracy("induction", "hawk", "llama", rung=times_longer(8))(induction))
    assert not list(accuracy("mqar", "hawk", "llama")(induction))
    assert setting(needles=6, asked=2)(induction.content["data"]["task"]) == "needles=6"
    assert setting(needles=4, asked=2)(induction.content["data"]["task"]) == "as trained"


def test_runs_that_do_not_solve_it_bound_the_steps(induction):
    (one,) = steps("induction", "hawk", "llama")(induction)
    assert (one.value, one.high) == (None, math.inf)
    assert one.shown.startswith("at least 3.420")  # (4 * 2 * 5) ^ (1/3)
    (other,) = steps("induction", "llama", "hawk")(induction)
    assert other.low == 0.0
    (alone,) = solved("induction", "hawk")(induction)
    assert (alone.low, alone.high) == (0.99, 1.0)


def test_a_floor_and_an_untuned_arm_are_told(induction):
    induction.content["comparisons"][0] |= {"verdict": "preliminary", "caps": ["hawk: rate at the edge"]}
    (one,) = accuracy("induction", "hawk", "llama")(induction)
    assert one.doubts == ("hawk: rate at the edge",)
    induction.content["comparisons"][0] |= {"verdict": "floor", "caps": ["the baseline solves nothing"]}
    (one,) = accuracy("induction", "hawk", "llama")(induction)
    assert one.floor


def test_the_experiments_reach_the_claims(length, induction):
    found = judged(CLAIMS, [length, induction])
    sources = {one.claim.name for one in found if one.source}
    assert {"rope-length", "pi-untrained", "pi-trained", "yarn-trained"} <= sources
    assert {"hawk-induction", "hawk-induction-further"} <= sources
