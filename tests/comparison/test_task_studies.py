"""Studies of a synthetic task: words, steps to solve, equal states, a whole small study, refusals."""

import json
import math

import pytest

from windtunnel.claims import Filed
from windtunnel.claims.tasks import accuracy
from windtunnel.comparison.caveats import task_caveats
from windtunnel.comparison.engine import run_study
from windtunnel.comparison.matching import Shape
from windtunnel.comparison.report import render_report
from windtunnel.comparison.report.summary import markdown_table
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.comparison.results import assemble
from windtunnel.comparison.state_matching import match_state
from windtunnel.comparison.study import load_study
from windtunnel.comparison.survival import log_rank, median_step
from windtunnel.comparison.task_results import FLOOR, compare_task, judged, state_bytes, summary
from windtunnel.errors import InputError

TASK = "copying:symbols=6,shortest=2,longest=6"
SMALL = {"seeds": 2, "trials": 1, "items": 150, "tokens": 14 * 8 * 20, "settings": {"width": 16}}


def request(out, *arms, **changes):
    return StudyRequest(arms=arms, out=out, **{"preset": "smoke", "task": TASK, **SMALL, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "task"
    study = plan_study(request(folder, "llama", "gpt3"))
    return folder, study, run_study(study, folder, workers=2)


def test_a_study_of_a_task_tells_accuracy_with_its_chance(finished):
    _, study, results = finished
    assert results["data"]["chance"] == pytest.approx(1 / 7)
    assert results["settings"]["context"] == study.task.span == 14
    task = results["arms"]["llama"]["task"]
    assert len(task["accuracy"]["seeds"]) == len(task["solved_at"]) == 2
    assert task["steps"] == 20
    assert [rung["label"] for rung in task["rungs"]][:2] == ["as trained", "longest=6"]
    assert task["state_bytes"] == state_bytes(study.arm("llama"), 14)
    assert task["max_over_sweep"] is not None
    assert results["arms"]["gpt3"]["task"]["beyond"] == ["longest=12", "longest=24"]
    assert "bits_per_byte" not in results["arms"]["llama"]
    assert results["comparisons"][0]["verdict"] == FLOOR  # in 20 steps the baseline solves nothing
    json.dumps(results, allow_nan=False)
    (evidence,) = accuracy("copying", "gpt3", "llama")(Filed("results.json", results))
    assert evidence.floor
    assert evidence.value == results["comparisons"][0]["delta_accuracy"]
    assert "not solved against not solved" in evidence.shown
    assert not list(accuracy("induction", "gpt3", "llama")(Filed("results.json", results)))


def test_the_page_asks_for_the_convolutions_control_and_names_it_where_it_is(finished, tmp_path):
    *_, results = finished
    asked = next(caveat for caveat in results["caveats"] if "convolution" in caveat)
    assert "`llama-conv=llama:convolution=4`" in asked
    controlled = plan_study(request(tmp_path / "study", "llama", "llama-conv=llama:convolution=4", "mamba"))
    assert abs(controlled.arm("llama-conv").matching.gap) <= 0.01
    (told,) = (caveat for caveat in task_caveats(controlled, results) if "convolution" in caveat)
    assert "what exceeds llama-conv, not llama alone, is owed to something else" in told


def test_the_items_and_their_order_are_the_same_in_every_arm(finished):
    _, _, results = finished
    assert results["arms"]["llama"]["batch_hash"] == results["arms"]["gpt3"]["batch_hash"]
    assert any(row["what"] == "held-out items" and row["evidence"] == "150 items" for row in results["held_equal"])


def test_trials_are_as_long_as_runs_a_factor_of_root_two_apart_and_climb_no_ladder(finished):
    folder, study, _ = finished
    trial = next((folder / "trials" / "llama").iterdir())
    ends = json.loads((trial / "result.json").read_text())["horizons"]["1.0"]
    assert [rung["label"] for rung in ends["rungs"]] == ["as trained"]
    assert ends["steps"] == 20
    assert study.rule(study.arm("llama"), 2.0).ratio == pytest.approx(math.sqrt(2))
    assert not (folder / "throughput.json").exists()


def test_files_alone_give_the_same_bytes_and_nothing_is_trained_twice(finished):
    folder, study, results = finished
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    before = (folder / "results.json").read_bytes()
    assert load_study(folder)[0] == study
    assemble(folder)
    assert (folder / "results.json").read_bytes() == before
    assert run_study(study, folder, workers=1) == results
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")} == stamps


def test_another_task_in_the_same_folder_is_refused(finished):
    folder, _, _ = finished
    with pytest.raises(InputError, match=r"another study .*data\.task\.symbols"):
        plan_study(request(folder, "llama", "gpt3", task="copying:symbols=7,shortest=2,longest=6"))


def test_the_page_and_the_table_speak_of_accuracy(finished):
    _, _, results = finished
    page = render_report(results)
    for words in ("Accuracy by length and difficulty", "A floor, not a result", "How soon it is learned", "chance"):
        assert words in page
    assert "bits/byte" not in page
    table = markdown_table(results)
    assert "chance 0.143" in table
    assert table.count("floor") == 2


def arms_of(**found):
    """Arms with (accuracies, steps that solved them) by name."""
    return {
        name: {
            "untuned": False,
            "loss": {"seeds": [1 - value for value in accuracies]},
            "task": {
                "accuracy": summary(accuracies),
                "solved_at": steps,
                "solved": sum(step is not None for step in steps) / len(steps),
                "median_steps": median_step(steps),
                "steps": 1000,
                "chance": 0.1,
            },
        }
        for name, (accuracies, steps) in found.items()
    }


def word(base, variant, seeds=5):
    class Study:
        baseline = "base"
        variants = ("other",)

    class Arm:
        label = "other"

    arms = arms_of(base=base, other=variant)
    return judged([compare_task(Study, arms, Arm, [(i, i) for i in range(seeds)])], arms)[0]["verdict"]


SOLVED = ([1.0, 0.999, 1.0, 1.0, 0.998], [100, 120, 90, 110, 105])


def test_words():
    assert word(SOLVED, ([0.5, 0.6, 0.55, 0.5, 0.52], [None] * 5)) == "loses"
    assert word(SOLVED, ([0.999, 1.0, 1.0, 0.999, 1.0], [101, 119, 95, 108, 100])) == "equivalent"
    assert word(SOLVED, ([1.0] * 5, [20, 22, 25, 19, 30])) == "equivalent, sooner"
    assert word(SOLVED, ([1.0] * 5, [800, 900, 850, 950, 700])) == "equivalent, later"
    assert word(SOLVED, ([1.0, 0.3, 1.0, 0.9, 1.0], [100, None, 90, None, 120])) == "inconclusive"
    lucky = ([0.95, 0.99, 0.94, 0.96, 0.992], [None, 900, None, None, 950])
    assert word(lucky, SOLVED) == FLOOR
    half = ([0.99, 0.93, 0.99, 0.92, 0.99], [900, None, 950, None, 990])
    assert word(half, ([1.0, 0.999, 1.0, 1.0, 0.999], [1] * 5)) == "inconclusive"
    assert word(([1.0], [100]), ([0.5], [None]), seeds=1) == "no verdict"
    assert word(([1.0] * 2, [100, 110]), ([0.5, 0.501], [None] * 2), seeds=2) == "preliminary"


def mantel(first, second, budget):
    """The log-rank test written out: observed less expected, over all steps at which a run solved it."""
    runs = [(step or budget, step is not None, arm) for arm, steps in enumerate((first, second)) for step in steps]
    excess = variance = 0.0
    for time in sorted({step for step, solved, _ in runs if solved}):
        at_risk = [sum(step >= time and arm == one for step, _, arm in runs) for one in (0, 1)]
        events = sum(step == time and solved for step, solved, _ in runs)
        ours = sum(step == time and solved and arm == 0 for step, solved, arm in runs)
        total = sum(at_risk)
        excess += ours - events * at_risk[0] / total
        if total > 1:
            variance += at_risk[0] * at_risk[1] * events * (total - events) / total**2 / (total - 1)
    return math.erfc(abs(excess) / math.sqrt(2 * variance))


@pytest.mark.parametrize(
    ("first", "second"),
    [([100, 120, None], [300, None, None]), ([10, 20, 30, 40], [15, 25, 35, None]), ([5, 5, 9], [5, 7, 7])],
)
def test_log_rank_is_mantels_with_ties_and_censoring(first, second):
    assert log_rank(first, second, 1000) == pytest.approx(mantel(first, second, 1000), abs=1e-9)


def test_medians_count_unsolved_runs_as_later_than_all():
    assert median_step([300, None, 100]) == 300
    assert median_step([None, None, 100]) is None
    assert median_step([100, 200]) == 150
    assert log_rank([None, None], [None], 50) is None


def test_states_are_matched_by_the_nearest_width():
    shape = Shape(width=64, layers=2, heads=4, hidden=128)

    def state(settings):
        return 100 * settings["width"]

    found = match_state(state, lambda settings: settings["width"] ** 2, shape, 3150, 64**2)
    assert found.settings == {"width": 32, "layers": 2, "heads": 2, "hidden": 64}
    assert found.gap == pytest.approx(-0.75)
    assert "+1.6 %" in found.warning
    assert match_state(state, state, shape, 6400, 6400).warning == ""
    with pytest.raises(InputError, match="nearest to 900 bytes"):
        match_state(state, state, shape, 900, 6400)
    assert match_state(state, state, shape, 900, 6400, allow_gap=True).settings["width"] == 16


def test_arms_of_one_state(tmp_path):
    study = plan_study(request(tmp_path / "never", "llama", "hawk", state=3584, settings={"width": 32}))
    sizes = {arm.label: state_bytes(arm, 14) for arm in study.arms}
    assert all(abs(size / 3584 - 1) <= 0.05 for size in sizes.values()), sizes
    assert study.data["state"] == sizes["llama"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "mqar:pairs=40"}, "at least 160"),
        ({"data": ("my.txt",)}, "data belongs to a text"),
        ({"vocab": 100}, "vocab belongs to a text"),
        ({"reference": 3.0}, "reference belongs to a text"),
        ({"settings": {"context": 20}}, "an item of copying has 14 tokens"),
        ({"task": None, "items": 10}, "items belongs to a task"),
        ({"state": "most"}, "a number of bytes, or baseline"),
        ({"task": "state_tracking:length=2"}, "different"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        plan_study(request(tmp_path / "never", "llama", "gpt3", **changes))
    assert not (tmp_path / "never").exists()
