"""Synthetic tasks as a workload of training: scores held to hand-made ones, resuming to the bit, refusals."""

import json

import numpy as np
import pytest
import torch

from tests.training.conftest import EXECUTION, weights
from windtunnel import recipes
from windtunnel.data.tasks import Items, held_out, parse_task
from windtunnel.errors import InputError
from windtunnel.evaluation.accuracy import addressable, evaluate_task, score_items
from windtunnel.kernels import linear_cross_entropy, linear_cross_entropy_reference
from windtunnel.mixers import Nothing
from windtunnel.training.interruption import Interrupted
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Synthetic, open_workload

COPYING = parse_task("copying:symbols=5,shortest=3,longest=4")


def model_for(task, name="llama", **changes):
    sizes = {"layers": 2, "width": 16, "heads": 2, "vocab": task.ids, "context": task.span, **changes}
    return recipes.get(name)(**sizes)


def settings_for(task, steps, **changes):
    common = {"context": task.span, "batch_size": 4, "learning_rate": 3e-3, "seed": 1, "data_seed": 1}
    common |= changes
    return TrainingSettings(tokens=steps * common["batch_size"] * task.span, **common)


def test_scores_are_those_of_the_logits(proof):
    """Item by item, answer by answer, from the logits of a plain forward pass."""
    model = model_for(COPYING).build().initialize(3)
    items = held_out(COPYING, 150)
    scores = score_items(model, items)
    nats, right = [], []
    for tokens, targets in zip(*items, strict=True):
        chances = model(torch.from_numpy(tokens)[None]).logits[0].detach().log_softmax(-1)
        places = [place for place, target in enumerate(targets) if target >= 0]
        nats.append(-sum(float(chances[place, targets[place]]) for place in places))
        right.append(sum(int(chances[place].argmax()) == targets[place] for place in places))
    proof("accuracy of a task", "logits, item by item", nats=np.abs(scores.nats - nats).max())
    assert scores.nats == pytest.approx(np.array(nats), abs=1e-4)
    assert scores.correct.tolist() == right
    assert scores.answers.tolist() == items.answers.sum(1).tolist()


class Knows(torch.nn.Module):
    """Knows the answers of some rows: its hidden vectors are the right tokens there, and token 0 elsewhere."""

    def __init__(self, items, known):
        super().__init__()
        self.items, self.known = items, known
        self.embedding = torch.nn.Embedding(20, 20)
        torch.nn.init.eye_(self.embedding.weight)
        self.seen = 0

    def context_of(self, tokens):
        return None

    def encode(self, tokens, state, context):
        rows = slice(self.seen, self.seen + len(tokens))
        self.seen += len(tokens)
        targets = torch.from_numpy(self.items.targets[rows]).clamp(min=0)
        chosen = torch.where(torch.from_numpy(self.known[rows])[:, None], targets, 0)
        return type("Encoded", (), {"hidden": 50 * torch.nn.functional.one_hot(chosen, 20).float()})

    def head(self, hidden, table):
        return hidden @ table.T


def test_accuracy_counts_answers_and_whole_items():
    items = held_out(parse_task("copying:symbols=5,shortest=4,longest=4"), 400)
    items = Items(items.tokens, np.where(items.targets == 0, 1, items.targets))  # token 0 is never right
    known = np.arange(400) % 4 == 0
    scores = score_items(Knows(items, known), items)
    assert scores.accuracy == pytest.approx(0.25)
    assert scores.whole == pytest.approx(0.25)
    assert scores.figures()["whole_items"] == 100
    assert scores.only(known).accuracy == 1.0


def test_the_ladder_and_the_aspects_are_scored():
    task = parse_task("copying:symbols=6,shortest=1,longest=8")
    model = model_for(task).build().initialize(0)
    figures = evaluate_task(model, task, 200).figures()
    assert [rung["label"] for rung in figures["rungs"]] == [
        "as trained", "longest=4", "longest=8", "longest=16", "longest=32",
    ]  # fmt: skip
    assert sum(one["items"] for one in figures["aspects"]["length"]) == 200
    assert [one["from"] for one in figures["aspects"]["length"]] == list(range(1, 9))
    json.dumps(figures, allow_nan=False)
    many = evaluate_task(model, parse_task("copying:symbols=6,shortest=1,longest=30"), 200, ladder=False).figures()
    assert [(one["from"] - 1) & one["from"] for one in many["aspects"]["length"][:4]] == [0, 0, 0, 0]


def test_rungs_beyond_a_table_of_positions_are_named_and_not_asked():
    model = model_for(COPYING, "gpt3").build().initialize(0)
    assert evaluate_task(model, COPYING, 50).beyond == ("longest=8", "longest=16")
    assert "end at 10, an item has 14" in addressable(model.spec, COPYING.replace(longest=6))
    assert "the task has 30 tokens" in addressable(model.spec, parse_task("copying:longest=4"))


def test_a_run_learns_what_is_scored_on_the_way_and_a_stopped_one_ends_with_the_same_bits(tmp_path):
    spec, settings = model_for(COPYING), settings_for(COPYING, 80)
    workload = Synthetic(COPYING, 100)
    whole = train(spec, settings, workload, tmp_path / "whole", EXECUTION)
    last = whole.horizons["1.0"]
    assert [probe["step"] for probe in last["probes"]] == list(range(2, 81, 2))
    assert last["solved_at"] is None
    assert last["loss"] < whole.initial_loss
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        train(spec, settings, workload, tmp_path / "cut", EXECUTION, stop=lambda: next(asked) == 37)
    resumed = train(spec, settings, workload, tmp_path / "cut", EXECUTION, resume=True)
    timed = {"seconds": 0}
    assert {**resumed.horizons["1.0"], **timed} == {**last, **timed}
    one, other = (weights(tmp_path / name / last["checkpoint"]) for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert sum("whole" in row for row in rows) == 40
    assert not (tmp_path / "cut" / "tokenizer").exists()
    longer = COPYING.replace(longest=5)
    with pytest.raises(InputError, match=r"data\.task\.longest was 4, now 5"):
        train(model_for(longer), settings_for(longer, 80), Synthetic(longer, 100), tmp_path / "cut", resume=True)


def test_a_workload_is_made_again_from_its_address():
    workload = Synthetic(COPYING, 17, ladder=False)
    assert open_workload(json.loads(json.dumps(workload.address()))) == workload


def test_a_diverged_run_is_at_chance(tmp_path):
    result = train(
        model_for(COPYING),
        settings_for(COPYING, 40, learning_rate=1e8, clip=None),
        COPYING,
        tmp_path / "run",
        EXECUTION,
    )
    last = result.horizons["1.0"]
    assert result.diverged
    assert last["imputed"]
    assert last["accuracy"] == pytest.approx(COPYING.chance)
    assert last["whole"] == 0
    assert last["loss"] == pytest.approx(result.initial_loss)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    short = model_for(COPYING, "gpt3", context=8)
    with pytest.raises(InputError, match="end at 8, an item has 10"):
        train(short, settings_for(COPYING, 10), COPYING, tmp_path / "run", EXECUTION)
    with pytest.raises(InputError, match="an item of copying has 10 tokens"):
        train(model_for(COPYING), settings_for(COPYING, 10, context=12), COPYING, tmp_path / "run", EXECUTION)
    with pytest.raises(InputError, match="items: 0"):
        Synthetic(COPYING, 0)
    assert not (tmp_path / "run").exists()


def test_few_targets_cost_few_rows_and_give_the_same_loss():
    """The head is computed where there are answers alone; values and gradients are those of all rows."""
    torch.manual_seed(1)
    hidden = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.full((40,), -1)
    targets[[3, 17, 18]] = torch.tensor([1, 10, 0])
    results = []
    for function in (linear_cross_entropy, linear_cross_entropy_reference):
        total = sum(function(hidden, weight, targets, soft_cap=3.0, z_loss=0.1))
        results.append((total, *torch.autograd.grad(total, (hidden, weight))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "steps", "learning_rate"),
    [("mqar:vocab=64,length=32,pairs=4", 500, 6e-3), ("induction:vocab=8,length=32", 500, 6e-3)],
)
def test_a_small_llama_solves_it(text, steps, learning_rate, tmp_path):
    task = parse_task(text)
    batch = 64 if task.name == "mqar" else 128
    spec = model_for(task, width=64, heads=2)
    settings = settings_for(task, steps, batch_size=batch, learning_rate=learning_rate)
    last = train(spec, settings, Synthetic(task, 500, ladder=False), tmp_path / "run", EXECUTION).horizons["1.0"]
    assert last["accuracy"] > 0.95
    assert last["solved_at"] is not None


def test_without_a_token_mixer_recall_stays_at_chance(tmp_path):
    task = parse_task("mqar:vocab=64,length=32,pairs=4")
    spec = model_for(task)
    blind = spec.replace(blocks=tuple(block.replace(mixer=Nothing()) for block in spec.blocks))
    settings = settings_for(task, 60, batch_size=16, learning_rate=6e-3)
    last = train(blind, settings, Synthetic(task, 300, ladder=False), tmp_path / "run", EXECUTION).horizons["1.0"]
    assert last["accuracy"] < 3 * task.chance
