"""lm-evaluation-harness: a run behind its interface scores what the harness's own model scores on the same weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM
from typer.testing import CliRunner

import windtunnel as wt
from tests.interop.pairs import disturbed
from tests.interop.test_gpt_neo import neo
from tests.interop.test_tokenizers_carried import byte_level
from tests.proof import Proof
from windtunnel.errors import InputError
from windtunnel.interop.continuations import Pair, likelihoods
from windtunnel.interop.importing import import_folder

TASKS = Path(__file__).parent / "lm_eval_tasks"
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")
TOLERANCE = 1e-4
SIZES = {"vocab_size": 401, "hidden_size": 24, "num_hidden_layers": 2, "bos_token_id": None, "eos_token_id": 0}


def llama() -> Any:
    heads = {"num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 36}
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **heads, "bos_token_id": 400, "max_position_embeddings": 64}))


def mamba() -> Any:
    return MambaForCausalLM(MambaConfig(**SIZES, state_size=4))


GPT_NEO = {"vocab_size": 401, "max_position_embeddings": 64, "eos_token_id": 0, "bos_token_id": 0}
FAMILIES = {"gpt_neo": lambda: neo(**GPT_NEO), "llama": llama, "mamba": mamba}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with a tokenizer; Llama's puts a token before every text."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp(request.param) / "theirs"
    disturbed(FAMILIES[request.param]()).save_pretrained(place)
    made = byte_level()
    made.add_special_tokens(["<s>"])
    names = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    if request.param == "llama":
        template = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 400)])
        made.post_processor, names["bos_token"] = template, "<s>"
    made.save(str(place / "tokenizer.json"))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (place / "tokenizer_config.json").write_text(json.dumps(words))
    import_folder(place, place.with_name("run"))
    return place


@torch.no_grad()
def test_likelihoods_are_transformers_own(folder: Path) -> None:
    """One pair after another through their model, against ours in batches of one and of eight."""
    run, theirs = wt.load(folder.with_name("run")), AutoModelForCausalLM.from_pretrained(folder).eval()
    pairs = [Pair(list(range(3, 3 + a)), [(7 * k + a) % 400 for k in range(b)]) for a, b in ((1, 1), (5, 2), (30, 9))]
    pairs.append(Pair([1, 2, 3], [int(theirs(torch.tensor([[1, 2, 3]])).logits[0, -1].argmax())]))
    alone, together = (likelihoods(run.model, pairs, 20, size) for size in (1, 8))
    for pair, one, other in zip(pairs, alone, together, strict=True):
        read = [*pair.context, *pair.answer][-21:]
        nats = theirs(torch.tensor([read[:-1]])).logits[0].log_softmax(-1)[-len(pair.answer) :]
        expected = sum(float(nats[k, token]) for k, token in enumerate(pair.answer))
        greedy = nats.argmax(-1).tolist() == list(pair.answer)
        assert one.nats == pytest.approx(expected, abs=TOLERANCE)
        assert other.nats == pytest.approx(one.nats, abs=TOLERANCE)
        assert one.greedy is other.greedy is greedy
    assert alone[-1].greedy
    with pytest.raises(InputError, match="answer: has 21 tokens, more than the 20"):
        likelihoods(run.model, [Pair([1], [2] * 21)], 20)
    with pytest.raises(InputError, match="context: has no token"):
        likelihoods(run.model, [Pair([], [2])], 20)


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped tasks with absolute paths, and the harness, offline."""
    pytest.importorskip("lm_eval", reason="pip install 'windtunnel[lm-eval]'")
    for name in OFFLINE:
        monkeypatch.setenv(name, "1")
    place = tmp_path / "tasks"
    shutil.copytree(TASKS, place)
    for path in place.glob("*.yaml"):
        path.write_text(path.read_text().replace("FOLDER", str(place)))
    return place


def scores(model: Any, tasks: Path, shots: int | None = None) -> tuple[dict[str, float], list[Any]]:
    """Every figure by task, metric and filter, and the answers to every request."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    names = [name for name in manager.all_tasks if shots is None or name in ("shipped_choices", "shipped_going_on")]
    settings: Any = {"task_manager": manager, "bootstrap_iters": 0, "num_fewshot": shots, "log_samples": True}
    result: Any = lm_eval.simple_evaluate(model=model, tasks=names, **settings)
    figures = {
        f"{task} {key}": value
        for task, found in result["results"].items()
        for key, value in found.items()
        if isinstance(value, float)
    }
    answers = {name: [each["resps"] for each in result["samples"][name]] for name in names}
    return figures, [answers[name] for name in sorted(answers)]


def flat(answers: Any) -> list[Any]:
    return [leaf for each in answers for leaf in flat(each)] if isinstance(answers, list | tuple) else [answers]


def assert_alike(ours: list[Any], theirs: list[Any]) -> float:
    """Texts and flags are equal, numbers within 1e-4; the largest difference."""
    worst = 0.0
    assert len(flat(ours)) == len(flat(theirs)) > 0
    for one, other in zip(flat(ours), flat(theirs), strict=True):
        if isinstance(other, float):
            worst = max(worst, abs(one - other))
        else:
            assert one == other
    assert worst <= TOLERANCE
    return worst


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("shots", [None, 2])
def test_scores_are_the_harness_own(shots: int | None, folder: Path, tasks: Path, proof: Proof) -> None:
    """Every request of every task gets the answer that the harness's own class gives on the same weights."""
    pytest.importorskip("accelerate", reason="the harness's own model needs it: pip install accelerate")
    from lm_eval.models.huggingface import HFLM

    from windtunnel.interop.lm_eval import RunModel

    run = wt.load(folder.with_name("run"))
    length = 64
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, max_length=length)
    wanted, expected = scores(theirs, tasks, shots)
    for batch_size in (1, 8):
        figures, answers = scores(RunModel(run, length, batch_size), tasks, shots)
        worst = assert_alike(answers, expected)
        assert figures == pytest.approx(wanted, rel=TOLERANCE, abs=TOLERANCE)
    assert any(text for text in flat(expected) if isinstance(text, str))
    proof("lm-eval adapter", f"lm_eval's HFLM, {folder.parent.name[:-1]}, {shots or 0} shots", values=worst)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_pieces_of_a_text_split_where_its_context_ends(folder: Path, tasks: Path) -> None:
    """`encode(a + b)` begins with `encode(a)` where b begins with a space: the harness cuts there."""
    from windtunnel.interop.lm_eval import RunModel

    model = RunModel(wt.load(folder.with_name("run")))
    words = [word for path in sorted(Path(__file__).parent.glob("*.py")) for word in path.read_text().split()]
    for k in range(1000):
        context, answer = " ".join(words[k : k + 5]), " " + words[k + 5]
        assert model.tok_encode(context + answer)[: len(model.tok_encode(context))] == model.tok_encode(context)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_what_cannot_be_asked_is_refused(folder: Path, tasks: Path) -> None:
    from windtunnel.interop.lm_eval import RunModel, evaluate

    run = wt.load(folder.with_name("run"))
    with pytest.raises(InputError, match="6 new tokens, which leave nothing of the model's 6"):
        evaluate(RunModel(run, length=6), [str(tasks), "shipped_going_on"])
    with pytest.raises(InputError, match="no_task is neither a folder of tasks nor a task"):
        evaluate(RunModel(run), [str(tasks), "no_task"])
    with pytest.raises(InputError, match="has no tokenizer"):
        RunModel(replace(run, tokenizer=None))
    if folder.parent.name.startswith("gpt_neo"):
        with pytest.raises(InputError, match="length: 65 tokens are more than"):
            RunModel(run, length=65)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_command(folder: Path, tasks: Path) -> None:
    from windtunnel.cli.app import app

    def asked(*options: str) -> Any:
        answer = CliRunner().invoke(app, ["lm-eval", str(folder.with_name("run")), "--json", *options])
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.stdout)["tasks"]

    found = asked("--tasks", str(tasks), "--limit", "3")
    assert set(found) == {"shipped_answers", "shipped_choices", "shipped_going_on", "shipped_rolling"}
    assert found["shipped_choices"]["items"] == 3
    assert 0 < found["shipped_rolling"]["metrics"]["bits_per_byte"]["value"] < 100
    assert asked("--tasks", f"{tasks},shipped_choices", "--shots", "1")["shipped_choices"]["shots"] == 1
