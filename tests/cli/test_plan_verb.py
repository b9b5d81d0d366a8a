"""`windtunnel plan`."""

import json
import re
from pathlib import Path

import pytest

SMALL = ["plan", "llama", "--set", "layers=2", "--set", "width=64", "--set", "heads=4", "--set", "kv_heads=2"]
ON = ["--hardware", "a100", "--devices", "4", "--batch", "16"]


def test_json_tells_where_every_figure_comes_from(command) -> None:
    answer = command(*SMALL, *ON, "--price", "2", "--tokens", "1M", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    inputs = {each["name"]: each for each in found["inputs"]}
    assert inputs["batch"]["basis"] == inputs["price"]["basis"] == "given"
    assert inputs["utilisation"]["basis"] == inputs["recompute"]["basis"] == "assumed"
    assert inputs["bandwidth of the memory"]["basis"] == "published"
    assert {each["basis"] for each in found["inputs"]} <= set(found["meanings"])
    assert found["plan"]["step"]["basis"] == found["training"]["basis"] == "modelled"
    assert found["parameters"]["basis"] == "counted"
    assert found["training"]["cost"] == pytest.approx(2 * found["training"]["device_hours"])
    sizes = {part["name"]: part["size"] for part in found["plan"]["memory"]}
    assert sum(sizes.values()) == pytest.approx(found["plan"]["memory_bytes"])
    assert found["plan"]["fits"]
    assert found["others"][0]["mesh"] == found["plan"]["mesh"]


def test_an_observed_throughput_replaces_the_modelled(command) -> None:
    answer = command(*SMALL, *ON, "--throughput", "1000", "--json")
    step = answer.json["plan"]["step"]
    assert (step["tokens_per_second"], step["basis"]) == (pytest.approx(1000), "given")
    assert step["modelled_seconds"] < step["seconds"]


def test_tables_for_people(command) -> None:
    answer = command(*SMALL, *ON, "--mesh", "tensor=2")
    assert answer.code == 0, answer.err
    for words in ("Memory of a device", "Traffic of a step", "Meshes that fit", "Serving on", "What this rests on"):
        assert words in answer.out
    assert "shard=2,tensor=2" in answer.out
    assert "assumed" in answer.out


def test_a_page_that_loads_nothing(command) -> None:
    answer = command(*SMALL, *ON, "--out", "made/plan.html", "--json")
    assert answer.code == 0, answer.err
    page = Path("made/plan.html").read_text()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"(?:src|href)=\"https?:", page)
    assert page.count('class="segment"') > 10
    assert command(*SMALL, *ON, "--out", "again.html").code == 0
    assert Path("again.html").read_text() == page


def test_the_published_cases_alone(command) -> None:
    found = command("plan", "--published", "--json").json["cases"]
    assert {case["name"]: case["agrees"] for case in found}["GPT-3 175B: MFU"] is False
    assert "46.23" in command("plan", "--published").out


def test_hardware_of_ones_own(command) -> None:
    Path("mine.json").write_text(json.dumps({"mine": {"base": "a100", "memory": 2e9}}))
    answer = command(*SMALL, "--hardware", "mine", "--hardware-file", "mine.json", "--json")
    assert answer.json["hardware"]["memory"] == 2e9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hardware", "b100"], "hardware: unknown 'b100'; known are v100, a100"),
        (["--devices", "6", "--mesh", "tensor=4"], "mesh: tensor 4 is 4, which does not divide 6 devices"),
        (["--devices", "8", "--mesh", "tensor=8"], "mesh: tensor 8 does not divide 4 heads"),
        (["--devices", "0"], "--devices: expected at least 1"),
        (["--devices", "7", "--batch", "5"], "devices: no mesh of 7 divides the model and the batch of 5"),
        (["--recompute", "2"], "recompute: expected a share from 0 to 1, got 2"),
        (["--utilisation", "0"], "utilisation: expected a number above 0"),
        (["--optimiser", "adamm"], "optimiser: unknown 'adamm'; did you mean adam"),
        (["--dtype", "int8"], "dtype: expected bfloat16 or float32"),
        (
            ["--microbatch", "3", "--batch", "8", "--devices", "1"],
            "of 8 in microbatches of 3; give --batch a multiple of 3",
        ),
        (["--gradients", "0"], "gradients: expected at least 1"),
    ],
)
def test_bad_input_is_one_line(command, options: list[str], words: str) -> None:
    answer = command(*SMALL, *options)
    assert answer.code == 2
    assert words in answer.error


def test_a_recipe_is_needed(command) -> None:
    assert "RECIPE is missing" in command("plan").error
