"""`coordinate-check` and `train --mup`: what they do, and what they refuse in one line."""

import json

import pytest

from windtunnel import recipes

SMALL = ("--set", "layers=1", "--set", "heads=2", "--context", "16", "--batch", "4", "--tokens", "1k")


def test_the_check_says_whether_a_recipe_passes(command, tmp_path) -> None:
    answer = command(
        "coordinate-check", "llama", "--widths", "64,128,256", "--seeds", 1, "--steps", 2, "--set", "layers=1",
        "--no-contrast", "--out", "check.html", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    record = answer.json
    assert record["passed"]
    assert record["faults"] == []
    assert record["widths"] == [64, 128, 256]
    assert record["learning_rate"] == recipes.training("llama").learning_rate_at(64)
    assert set(record["sites"]) == {"mup"}
    assert {"embedding", "blocks.0.mixer", "blocks.0.mixer scores", "blocks.0.mlp", "logits"} <= {
        *record["sites"]["mup"]
    }
    assert "llama passes" in (tmp_path / "check.html").read_text()


def test_a_recipe_that_fails_ends_with_1(command) -> None:
    """At a rate that breaks every model, the widest most."""
    answer = command(
        "coordinate-check", "gpt3", "--widths", "16,32,64", "--seeds", 1, "--steps", 1, "--lr", "40", "--no-contrast"
    )
    assert answer.code == 1
    assert "gpt3 fails: " in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ngpt",), "unit sphere"),
        (("llama", "--widths", "64,128"), "at least three"),
        (("llama", "--widths", "64,x,256"), "expected a count"),
        (("llama", "--widths", "256,128,64"), "rising"),
    ],
)
def test_what_cannot_be_checked_is_refused(command, words, said) -> None:
    answer = command("coordinate-check", *words)
    assert answer.code == 2
    assert said in " ".join(answer.err.split())


def test_a_run_under_mup_takes_the_rate_of_the_base(command, text, tmp_path) -> None:
    answer = command("train", "llama", "--mup", 16, "--set", "width=64", "--data", text, *SMALL, "--out", "a", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["settings"]["learning_rate"] == pytest.approx(recipes.training("llama").learning_rate_at(16))
    spec = json.loads((tmp_path / "a/spec.json").read_text())
    assert spec["initial"]["kind"] == "MuP"
    assert (spec["initial"]["width"], spec["initial"]["base"], spec["head"]["scale"]) == (64, 16, 0.25)
    again = command("train", "llama", "--set", "width=64", "--data", text, *SMALL, "--out", "a", "--resume")
    assert again.code == 2
    assert "spec" in again.error


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        ("llama", ("--optimiser", "muon"), "no rates for 'muon'"),
        ("ngpt", (), "unit sphere"),
        ("llama", ("--optimiser", "adam"), "weight_decay"),
    ],
)
def test_runs_that_mup_has_no_rule_for(command, text, recipe, options, said, tmp_path) -> None:
    answer = command("train", recipe, "--mup", 16, "--set", "width=32", "--data", text, *SMALL, *options, "--out", "a")
    assert answer.code == 2
    assert said in answer.error
    assert not (tmp_path / "a").exists()
