"""A checkpoint of transformers as a run like any other: trained further, evaluated, extended, decoded, given out.

Two tiny ones: GPT-Neo, with learned positions, and Llama, with rotary ones and a token before every text.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from starlette.testclient import TestClient
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

import windtunnel as wt
from tests.cli.conftest import Answer
from tests.interop.pairs import near
from tests.interop.test_gpt_neo import neo
from tests.interop.test_tokenizers_carried import byte_level
from windtunnel.checkpoint import read_json
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.positions import stretched
from windtunnel.serving.app import application
from windtunnel.serving.served import serve_run

CONTEXT = 64
TEXT = argparse.__file__
BUDGET = ("--data", TEXT, "--tokens", 4096, "--evaluation-tokens", 2048, "--threads", 1)
NAMES = ("gpt_neo", "llama")
Command = Callable[..., Answer]


def llama(layers: int = 2) -> Any:
    sizes = {"vocab_size": 402, "hidden_size": 24, "num_hidden_layers": layers, "intermediate_size": 36}
    heads = {"num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": CONTEXT}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, bos_token_id=400, eos_token_id=0))


def gpt_neo(layers: int = 2) -> Any:
    return neo(layers, vocab_size=402, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=0)


MAKERS = {"gpt_neo": gpt_neo, "llama": llama}


def saved(model: Any, place: Path, begins: str | None) -> None:
    """A folder as the hub has them: weights, configuration, and a tokenizer that may put a token before a text."""
    model.save_pretrained(place)
    made = byte_level()
    made.add_special_tokens(["<s>"])
    if begins is not None:
        template = tokenizers.processors.TemplateProcessing(single=f"{begins} $A", special_tokens=[(begins, 400)])
        made.post_processor = template
    made.save(str(place / "tokenizer.json"))
    names = {"eos_token": "<|endoftext|>", "bos_token": begins or "<|endoftext|>", "model_max_length": CONTEXT}
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("use")


@pytest.fixture(scope="module")
def command(place: Path) -> Command:
    """`windtunnel ...`, with the runs of this file in a folder."""
    from windtunnel.cli.app import app

    def run(*words: object) -> Answer:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"WINDTUNNEL_CACHE": str(place / "cache")})
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="module")
def runs(place: Path, command: Command) -> Path:
    """NAME imported, a smaller NAME-draft, and the folders theirs/NAME that they come from."""
    torch.manual_seed(0)
    for name, make in MAKERS.items():
        for label, layers in ((name, 2), (f"{name}-draft", 1)):
            saved(make(layers), place / "theirs" / label, "<s>" if name == "llama" else None)
            assert command("import", place / "theirs" / label, "--out", place / label).code == 0
    return place


@pytest.fixture(scope="module")
def tuned(runs: Path, command: Command) -> dict[str, Any]:
    """Each trained further into NAME-tuned; what was printed."""
    options = (*BUDGET, "--context", 32, "--batch", 8, "--lr", 3e-3, "--json")
    return {name: command("train", runs / name, *options, "--out", runs / f"{name}-tuned").json for name in NAMES}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(wt.load(folder).model.state_dict())


def test_training_begins_with_its_weights(name: str, runs: Path, command: Command) -> None:
    """Steps of no size leave them, in float32 whatever they were stored in."""
    source = runs / name
    out = runs / f"{name}-same"
    settings = ("--context", 32, "--batch", 8, "--lr", 1e-30)
    answer = command("train", source, *BUDGET, *settings, "--out", out, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["run"] == str(source)
    before, after = weights(source), weights(out)
    assert all(torch.allclose(before[key], after[key], atol=1e-12) for key in before)
    record = read_json(out / "run.json")
    assert record["began_with"]["imported"]["family"] == name
    assert (record["began_with"]["run"], record["began_with"]["trained"]) == (str(source), CONTEXT)


def test_training_further_is_training(name: str, runs: Path, tuned: dict[str, Any], command: Command) -> None:
    record = tuned[name]
    assert record["data"]["tokenizer"] == "json-401"
    assert record["loss"] < record["result"]["initial_loss"] - 0.1
    again = command("train", runs / name, *BUDGET, "--context", 32, "--batch", 8, "--out", runs / f"{name}-tuned")
    assert "already holds a run" in again.error


def test_training_says_where_its_rate_comes_from(name: str, runs: Path, tuned: Any, command: Command) -> None:
    said = command("train", runs / name, *BUDGET, "--batch", 2, "--out", runs / f"{name}-usual", "--json")
    assert "learning rate 2e-05 (usual for imported weights)" in " ".join(said.err.split())
    assert (said.json["settings"]["context"], said.json["settings"]["learning_rate"]) == (CONTEXT, 2e-5)
    said = command("train", runs / f"{name}-tuned", *BUDGET, "--batch", 8, "--out", runs / f"{name}-more", "--json")
    assert f"learning rate 0.0003 (a tenth of {name}-tuned's)" in " ".join(said.err.split())
    assert said.json["settings"]["context"] == 32


def test_what_it_was_stored_in_is_no_matter(tmp_path: Path, runs: Path, command: Command) -> None:
    saved(llama().to(torch.bfloat16), tmp_path / "narrow", "<s>")
    assert command("import", tmp_path / "narrow", "--out", tmp_path / "run").code == 0
    answer = command("train", tmp_path / "run", *BUDGET, "--batch", 2, "--lr", 1e-30, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    before, after = weights(tmp_path / "run"), weights(tmp_path / "out")
    assert all(after[key].dtype == torch.float32 for key in after)
    assert all(torch.equal(before[key].float(), after[key]) for key in before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "layers=3"), "--set layers belongs to a recipe, and "),
        (("--settings", "common"), "--settings common belongs to a recipe, and "),
        (("--vocab", "500"), "reads by its own tokenizer, json-401; leave --tokenizer and --vocab out"),
        (("--context", "65"), "context is 65, but the model is meant for at most 64"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(
    options: tuple[str, ...], words: str, runs: Path, tmp_path: Path, command: Command
) -> None:
    answer = command("train", runs / "gpt_neo", *BUDGET, *options, "--out", tmp_path / "out")
    assert answer.code == 2
    assert words in answer.error
    assert not (tmp_path / "out" / "run.json").exists()


def test_without_a_tokenizer_one_must_be_named(runs: Path, tmp_path: Path, command: Command) -> None:
    gpt_neo().save_pretrained(tmp_path / "bare")
    assert command("import", tmp_path / "bare", "--out", tmp_path / "run").code == 0
    options = (*BUDGET, "--batch", 2, "--out", tmp_path / "out")
    assert "has no tokenizer; name the one" in command("train", tmp_path / "run", *options).error
    extension = ("--method", "linear", "--factor", 2, "--tokens", 1024, "--data", TEXT, "--out", tmp_path / "longer")
    assert "has no tokenizer" in command("extend", tmp_path / "run", *extension).error
    tokenizer = runs / "theirs" / "gpt_neo"
    answer = command("train", tmp_path / "run", *options, "--tokenizer", tokenizer, "--json")
    assert answer.json["data"]["tokenizer"] == "json-401"
    assert wt.load(tmp_path / "out").tokenizer is not None


@torch.no_grad()
def test_evaluation_is_theirs(name: str, runs: Path, command: Command, tmp_path: Path) -> None:
    """Nats a token of short documents, each by transformers' own logits."""
    texts = [f"usage: prog [-h] [--sum{index}] N [N ...]" for index in range(12)]
    (tmp_path / "short.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    answer = command("evaluate", runs / name, "--data", tmp_path / "short.jsonl", "--tasks", "loss", "--json")
    assert answer.code == 0, answer.err
    run, theirs = wt.load(runs / name), AutoModelForCausalLM.from_pretrained(runs / "theirs" / name).eval()
    assert run.tokenizer is not None
    begin = run.tokenizer.begin_of_text
    assert begin == {"llama": 400, "gpt_neo": 0}[name]
    documents = [torch.tensor([[begin, *run.tokenizer.encode(text)]]) for text in texts]
    nats = [cross_entropy(theirs(ids).logits[0, :-1], ids[0, 1:], reduction="none") for ids in documents]
    (arm,) = answer.json["tasks"][0]["arms"]
    assert arm["loss"]["value"] == pytest.approx(torch.cat(nats).mean().item(), abs=1e-5)


def test_a_tuned_run_is_evaluated_beside_it(name: str, runs: Path, tuned: Any, command: Command) -> None:
    pair = (runs / name, runs / f"{name}-tuned")
    answer = command("evaluate", *pair, "--data", json.__file__, "--tasks", "loss", "--json")
    assert answer.code == 0, answer.err
    first, second = (arm["loss"]["value"] for arm in answer.json["tasks"][0]["arms"])
    assert second < first


def extended(command: Command, runs: Path, name: str, method: str, *options: object) -> Answer:
    budget = ("--factor", 2, "--tokens", 2048, "--data", TEXT, "--threads", 1)
    return command("extend", runs / name, "--method", method, *budget, *options, "--json")


def test_rotary_positions_are_extended_and_given_out(runs: Path, command: Command) -> None:
    out = runs / "llama-yarn"
    answer = extended(command, runs, "llama", "yarn", "--out", out)
    assert answer.code == 0, answer.err
    assert (answer.json["trained"], answer.json["context"]) == (CONTEXT, 2 * CONTEXT)
    assert answer.json["settings"]["batch_size"] == 8
    assert command("export", out, "--out", runs / "llama-yarn-hf").code == 0
    theirs = AutoModelForCausalLM.from_pretrained(runs / "llama-yarn-hf").eval()
    assert theirs.config.rope_parameters["rope_type"] == "yarn"
    places = (runs / "llama-yarn-hf", runs / "theirs" / "llama")
    settings, given = (json.loads((place / "tokenizer_config.json").read_text()) for place in places)
    assert settings == {**given, "model_max_length": 2 * CONTEXT}
    tokens = torch.randint(400, (1, 2 * CONTEXT))
    with torch.no_grad():
        near(wt.load(out).model(tokens).logits, theirs(tokens).logits)
    assert "is extended already; extend" in extended(command, runs, "llama-yarn", "yarn", "--out", runs / "no").error
    assert command("import", runs / "llama-yarn-hf", "--out", runs / "llama-yarn-again").code == 0
    again = extended(command, runs, "llama-yarn-again", "linear", "--out", runs / "no")
    assert "scaled already (YaRN, factor 2); --method none trains longer sequences" in again.error


def test_learned_positions_are_interpolated(runs: Path, command: Command, tmp_path: Path) -> None:
    """By no other method, which is said; the table alone changes."""
    refused = extended(command, runs, "gpt_neo", "yarn", "--out", tmp_path / "no")
    assert refused.code == 2
    assert "learned, with no rotary ones for yarn to scale; --method linear interpolates their table" in refused.error
    answer = extended(command, runs, "gpt_neo", "linear", "--lr", 1e-30, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    before, after = weights(runs / "gpt_neo"), weights(tmp_path / "out")
    name = "embedding.positions.weight"
    assert torch.allclose(after[name], stretched(before[name], CONTEXT, 2 * CONTEXT), atol=1e-12)
    assert all(torch.allclose(after[key], before[key], atol=1e-12) for key in before if key != name)
    assert command("export", tmp_path / "out", "--out", tmp_path / "hf").code == 0
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    tokens = torch.randint(400, (1, 2 * CONTEXT))
    with torch.no_grad():
        near(wt.load(tmp_path / "out").model(tokens).logits, theirs(tokens).logits)


def test_text_and_what_is_not_here_to_extend_on(runs: Path, tmp_path: Path, command: Command) -> None:
    words = ("--method", "yarn", "--factor", 2, "--tokens", 2048, "--out", tmp_path / "no")
    assert "was not trained here on a text; name one by --data" in command("extend", runs / "llama", *words).error


def test_generation_is_theirs(name: str, runs: Path, command: Command) -> None:
    answer = command("generate", runs / name, "--prompt", "def usage", "--tokens", 20, "--temperature", 0, "--json")
    assert answer.code == 0, answer.err
    run, theirs = wt.load(runs / name), AutoModelForCausalLM.from_pretrained(runs / "theirs" / name).eval()
    assert run.tokenizer is not None
    ids = torch.tensor([[run.tokenizer.begin_of_text, *run.tokenizer.encode("def usage")]])
    made = theirs.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert answer.json["samples"][0]["text"] == run.tokenizer.decode(made.numpy())


def test_drafts_change_no_text(name: str, runs: Path, command: Command) -> None:
    words = ("generate", runs / name, "--prompt", "def usage", "--tokens", 20, "--temperature", 0, "--json")
    plain, drafted = command(*words).json, command(*words, "--draft", runs / f"{name}-draft").json
    assert drafted["samples"][0]["text"] == plain["samples"][0]["text"]
    assert drafted["speculation"]["drafted"] > 0


def test_serving(name: str, runs: Path) -> None:
    run = wt.load(runs / name)
    body = {"model": name, "prompt": "def usage", "max_tokens": 12, "temperature": 0}
    with TestClient(application([serve_run(name, run, threads=1)], local=True), base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"] == wt.generate(run, "def usage", tokens=12, temperature=0.0)


def test_a_tuned_run_goes_out_as_its_family(name: str, runs: Path, tuned: Any, command: Command) -> None:
    """With the files of the tokenizer as they came in."""
    folder = runs / f"{name}-tuned"
    out = runs / f"{name}-out"
    answer = command("export", folder, "--out", out, "--json")
    assert answer.code == 0, answer.err
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (out / file).read_bytes() == (runs / "theirs" / name / file).read_bytes()
    card = (out / "README.md").read_text()
    assert f"| imported from | {runs / 'theirs' / name} |" in card
    assert f"| began with | {runs / name} |" in card
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    assert type(theirs) is type(MAKERS[name]())
    tokens = torch.randint(400, (2, 40))
    with torch.no_grad():
        near(wt.load(folder).model(tokens).logits, theirs(tokens).logits)


def test_its_architecture_is_a_baseline(name: str, runs: Path, tmp_path: Path) -> None:
    """At its own sizes, for the study's vocabulary and length, beside a recipe that is matched to it."""
    texts = (f"base={runs / name}", "llama")
    asked = {"data": (TEXT,), "vocab": 300, "settings": {"context": 16}, "tokens": 2048, "preset": "smoke"}
    asked |= {"baseline": "base", "out": tmp_path / "study", "cache": tmp_path / "cache", "device": "cpu"}
    study = plan_study(StudyRequest(arms=texts, **asked))
    base, variant = (study.arm(label) for label in ("base", "llama"))
    spec: Any = wt.load(runs / name).spec
    fitted: Any = base.spec
    assert (fitted.vocab, fitted.context, fitted.blocks) == (300, 16, spec.blocks)
    assert (study.design.layers, study.design.width) == (spec.depth, spec.width)
    assert variant.spec.depth == spec.depth
    assert abs(variant.matching.gap) < 0.02
    for arm, words in (
        (f"other={runs / name}:width=32", "width is set, and .* is a run at its own sizes"),
        (f"other={runs / f'{name}-draft'}", "its sizes give .* body parameters"),
    ):
        with pytest.raises(wt.InputError, match=words):
            plan_study(StudyRequest(arms=(*texts, arm), **asked))
    asked = {**asked, "data": None, "vocab": None, "settings": {}, "task": "induction:length=16", "state": "baseline"}
    with pytest.raises(wt.InputError, match="is a run at its own sizes, and --state turns sizes"):
        plan_study(StudyRequest(arms=texts, **asked))


@pytest.mark.slow
def test_a_study_with_it(runs: Path, tmp_path: Path, command: Command) -> None:
    words = ("--preset", "smoke", "--seeds", 2, "--data", TEXT, "--vocab", 300, "--context", 16, "--tokens", 2048)
    arms = (f"base={runs / 'gpt_neo'}", "llama", "--baseline", "base", "--workers", 1)
    answer = command("compare", *arms, *words, "--out", tmp_path / "study", "--json")
    assert answer.code == 0, answer.err
    found = read_json(tmp_path / "study" / "results.json")["arms"]
    assert (found["base"]["recipe"], found["base"]["paper"]) == (str(runs / "gpt_neo"), "")
    assert found["llama"]["paper"]
    assert (tmp_path / "study" / "report.html").is_file()
