"""`windtunnel fit`."""

import csv
import json
import re
from pathlib import Path

import pytest

from tests.comparison.simulated_ladder import simulated
from windtunnel.claims import Filed
from windtunnel.claims.ladders import held_out_error, saving


def table(path: Path, **arms) -> Path:
    """A table of runs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "parameters", "tokens", "flops", "loss"])
        for name, runs in arms.items():
            columns = (runs.parameters, runs.tokens, runs.compute, runs.losses)
            writer.writerows([name, *map(float, row)] for row in zip(*columns, strict=True))
    return path


def study(folder: Path, runs, chosen, tokenizer="bytes") -> Path:
    """What a study's results hold of one size: every budget is a horizon, two seeds each."""
    size = float(runs.parameters[chosen][0])
    each = float((runs.compute / runs.tokens)[chosen][0])
    horizons = {
        str(k): {"tokens": float(t), "loss": {"seeds": [float(x), float(x) * 1.001]}}
        for k, (t, x) in enumerate(zip(runs.tokens[chosen], runs.losses[chosen], strict=True))
    }
    arm = {"params": {"n_active": size}, "n_body": 0.7 * size, "flops_per_token": each, "horizons": horizons}
    results = {
        "baseline": "llama",
        "data": {"id": "d", "tokenizer_fingerprint": tokenizer},
        "arms": {"llama": {**arm, "lr_at_edge": True}, "again": {**arm, "control": True}},
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return table(tmp_path / "runs.csv", llama=simulated(1, 0.001), palm=simulated(2, 0.001, saved=1.3))


def test_json_holds_fits_and_savings(command, pair) -> None:
    answer = command("fit", pair, "--draws", "100", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert found["baseline"] == "llama"
    low, high = found["multipliers"]["palm"]["at"]["largest"]["ci95"]
    assert low < 1.3 < high
    (saved,) = saving("palm", "llama")(Filed("fit.json", found))
    assert (saved.low, saved.high, saved.doubts) == (low, high, ())
    (error,) = held_out_error("palm")(Filed("fit.json", found))
    assert 0 <= error.value == error.high < 0.02
    law = found["arms"]["llama"]["loss_of_size_and_tokens"]
    assert law["alpha"]["value"] == pytest.approx(0.348, abs=0.02)
    assert law["held_out"]["compute"] == pytest.approx(2.56e20)
    assert max(found["arms"]["llama"]["loss_of_compute"]["curve"]["compute"]) == pytest.approx(4 * 2.56e20)
    assert command("fit", pair, "--draws", "100", "--json").json == found


def test_the_other_arm_as_baseline(command, pair) -> None:
    found = command("fit", pair, "--draws", "100", "--baseline", "palm", "--json").json
    assert found["multipliers"]["llama"]["at"]["largest"]["value"] == pytest.approx(1 / 1.3, rel=0.05)


def test_a_page_and_tables(command, pair) -> None:
    answer = command("fit", pair, "--draws", "100", "--out", "made/fit.html")
    assert answer.code == 0, answer.err
    for words in ("Compute multiplier", "L(N, D)", "L(C)", "Budgets", "made/fit.html"):
        assert words in answer.out
    page = Path("made/fit.html").read_text()
    assert not re.search(r"(?:src|href)=\"https?:", page)
    for words in ("saves compute", "Pareto frontier", "Compute multiplier against compute", "by 4x at most"):
        assert words in page


def test_one_arm_alone(command, tmp_path) -> None:
    only = table(tmp_path / "one.csv", llama=simulated(1, 0.001))
    answer = command("fit", only, "--draws", "100", "--out", "one.html")
    assert answer.code == 0, answer.err
    assert "Compute multiplier" not in answer.out


def test_studies_are_pooled(command, tmp_path) -> None:
    runs = simulated(0, 0.001, budgets=4, sizes=5)
    folders = [study(tmp_path / str(k), runs, [k]) for k in range(runs.losses.size)]
    answer = command("fit", *folders, "--draws", "100", "--json")
    assert answer.code == 0, answer.err
    assert list(answer.json["arms"]) == ["llama"]
    assert answer.json["arms"]["llama"]["budgets"][0]["runs"] == 10
    assert "edge of its grid" in answer.json["notes"][0]


def test_studies_of_other_tokenizers_are_refused(command, tmp_path) -> None:
    runs = simulated()
    folders = [study(tmp_path / name, runs, [0], name) for name in ("one", "two")]
    answer = command("fit", *folders)
    assert answer.code == 2
    assert "tokenizer two, but one in" in answer.error


def test_a_table_beside_a_study_is_refused(command, tmp_path, pair) -> None:
    answer = command("fit", pair, study(tmp_path / "study", simulated(), [0]))
    assert answer.code == 2
    assert "does not say on which data" in answer.error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arm,loss\nllama,3\n", "no column parameters, tokens, flops"),
        ("arm,parameters,tokens,flops,loss\n", "the table has no rows"),
        ("arm,parameters,tokens,flops,loss\nllama,1,2,three,4\n", "line 2: flops must be a number, got 'three'"),
        ("arm,parameters,tokens,flops,loss\nllama,1,2\n", "line 2: flops must be a number"),
        ("arm,parameters,tokens,flops,loss\n,1,2,3,4\n", "line 2: arm is empty"),
        ("arm,parameters,tokens,flops,loss\nllama,1,2,nan,4\n", "must be a non-empty row of finite numbers"),
        ("arm,parameters,tokens,flops,loss\nllama,1,2,3,4\n", "1 budget of compute, at least 4 are needed"),
    ],
)
def test_bad_tables_are_refused(command, tmp_path, text, words) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    answer = command("fit", path)
    assert answer.code == 2
    assert words in answer.error


def test_what_is_not_there_is_refused(command, pair) -> None:
    assert "SOURCE is missing" in command("fit").error
    assert "nowhere: no results.json is there" in command("fit", "nowhere").error
    assert "baseline: 'x' is not among the arms: llama, palm" in command("fit", pair, "--baseline", "x").error
    assert "--draws: expected at least 100, got 9" in command("fit", pair, "--draws", "9").error
