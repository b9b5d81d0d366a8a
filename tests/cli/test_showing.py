"""`recipes` and `show`."""

import json

import pytest

from windtunnel import recipes


def test_recipes_prints_the_table(command) -> None:
    answer = command("recipes", "--json")
    entries = answer.json["recipes"]
    assert [entry["name"] for entry in entries] == recipes.names()
    assert all(entry["paper"] and entry["parts"] for entry in entries)
    without = {entry["name"] for entry in entries if not entry["sizes"]}
    assert without == {"axial_text", "diff_transformer_v2", "bigbird", "topk_attention"}  # nobody published any
    shown = command("recipes").out
    assert all(name in shown for name in recipes.names())


def test_show_writes_out_a_spec(command) -> None:
    shown = command("show", "llama", "--set", "layers=6", "--set", "width=256", "--context", "128").out
    lines = shown.splitlines()
    assert lines[0] == "LanguageModel vocab=1024 width=256 context=128"
    assert "  blocks    6 x Block" in lines
    assert "mixer     Attention heads=4" in shown
    for word in ("n_total", "n_active", "attention core", "MLP", "training", "state of one sequence", "fingerprint"):
        assert word in shown


def test_show_counts_what_arithmetic_counts(command) -> None:
    answer = command("show", "llama", "--set", "layers=2", "--set", "width=64", "--set", "vocab=1k", "--json").json
    attention, mlp, norms = 4 * 64 * 64, 3 * 64 * 176, 2 * 64
    body = 2 * (attention + mlp + norms) + 64
    assert answer["parameters"]["n_body"] == body
    assert answer["parameters"]["n_total"] == body + 2 * 1000 * 64
    assert answer["state_bytes"]["128"] == 2 * 2 * 64 * 128 * 4  # layers, K and V, width, tokens, float32
    assert answer["fingerprint"] == recipes.get("llama")(layers=2, width=64, vocab=1000).fingerprint()
    assert answer["spec"]["blocks"][0]["kind"] == "Block"
    assert answer["declared"]["learning_rate"] == recipes.training("llama").learning_rate_at(64)
    assert answer["training"]["model"] == 3 * answer["forward"]["model"]


def test_show_says_how_the_paper_trained(command) -> None:
    answer = command("show", "palm", "--set", "layers=1", "--json").json
    assert answer["declared"]["paper"]["settings"]["optimiser"] == "adafactor"
    assert command("show", "llama", "--set", "layers=1", "--json").json["declared"]["paper"] is None
    assert "optimiser adafactor, learning_rate 0.01" in command("show", "palm", "--set", "layers=1").out


def test_layers_that_differ_are_listed_not_repeated(command) -> None:
    shown = command("show", "diff_transformer", "--set", "layers=6").out
    assert "blocks    6 x Block" in shown
    assert "depth=0,1,..,5" in shown
    assert "2 x these 2 in turn, then the first 1" in command("show", "gpt3", "--set", "layers=5").out


def test_the_largest_size_is_only_counted(command) -> None:
    answer = command("show", "palm", "--set", "size=540b", "--json").json
    assert answer["parameters"]["n_total"] == pytest.approx(540.35e9, rel=1e-3)


def test_show_reads_a_spec_file_and_a_run_folder(command, tmp_path) -> None:
    spec = recipes.get("ngpt")(layers=1, width=32)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.json").write_text(json.dumps(spec.to_json()))
    for name in ("run", "run/spec.json"):
        assert command("show", name, "--json").json["fingerprint"] == spec.fingerprint()
    assert "--set changes a recipe" in command("show", "run", "--set", "layers=2").error


def test_a_recipe_of_ones_own_is_named_by_its_package(command, tmp_path, monkeypatch) -> None:
    (tmp_path / "cli_lab.py").write_text(
        "from windtunnel import recipes\n"
        "def idea(**settings):\n"
        "    return recipes.get('llama')(tied=True, **settings)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert command("show", "cli_lab:idea", "--json").json["spec"]["head"]["tied"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lama"], "unknown recipe 'lama'; did you mean llama"),
        (["runs/none"], "runs/none: there is no such run folder or spec file"),
        (["llama", "--set", "laers=3"], "llama has no setting 'laers'; did you mean layers"),
        (["llama", "--set", "layers"], "'layers' is not name=value"),
        (["llama", "--set", "layers=many"], "layers: expected a whole number of at least 1, got 'many'"),
        (["llama", "--set", "layers=0"], "layers: expected a whole number of at least 1, got 0"),
        (["llama", "--set", "heads=7"], "heads 7 does not divide width 256"),
        (["llama", "--set", "size=8b"], "size: unknown size '8b'; did you mean"),
        (["llama", "--set", "context=8", "--context", "9"], "context: given as --context 9 and as --set context=8"),
        (["llama", "--context", "long"], "--context: expected a count such as 512, 4k, 20M or 1.5B, got 'long'"),
        (["no.such:thing"], "recipe 'no.such:thing': No module named 'no'"),
    ],
)
def test_bad_requests_get_one_line(command, arguments: list[str], said: str) -> None:
    answer = command("show", *arguments)
    assert answer.code == 2
    assert said in answer.error
    assert answer.out == ""


def test_a_damaged_spec_is_named(command, tmp_path) -> None:
    (tmp_path / "spec.json").write_text("{")
    assert "spec.json: damaged" in command("show", "spec.json").error
    (tmp_path / "spec.json").write_text('{"kind": "LanguageModl"}')
    answer = command("show", "spec.json")
    assert answer.code == 2
    assert "unknown kind 'LanguageModl'" in answer.error
    assert "LanguageModel" in answer.error
