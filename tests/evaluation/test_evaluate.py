"""Evaluations carried out: what is kept, what is refused, seeds put together, the page and its twin."""

import shutil
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch

from tests.evaluation.conftest import run_folder, text_of, tiny
from windtunnel.data.tokenizers import CharacterTokenizer
from windtunnel.errors import InputError
from windtunnel.evaluation import evaluate as module
from windtunnel.evaluation.by_position import ByPosition
from windtunnel.evaluation.evaluate import evaluate
from windtunnel.evaluation.page import render, tables
from windtunnel.evaluation.registry import EVALUATIONS, parse_evaluations
from windtunnel.evaluation.subject import Subject, subjects_of
from windtunnel.evaluation.text_loss import TextLoss
from windtunnel.runs import find


def subject(folder: Any, text: Any, label: str = "a") -> Subject:
    return Subject(label, find(folder), torch.device("cpu"), (), text)


@pytest.fixture
def two(tmp_path, draw):
    """Two seeds of one arm and a text."""
    text = text_of(draw(40, 17, 60))
    folders = [run_folder(tmp_path / f"s{seed}", tiny(seed=seed), seed=seed) for seed in (0, 1)]
    return [subject(folder, text) for folder in folders]


def test_settings_are_read_after_their_task():
    found = parse_evaluations("loss:most=4k,positions:context=8,stride=2")
    assert found == (TextLoss(most=4000), ByPosition(context=8, stride=2))
    assert {name: kind.name for name, kind in EVALUATIONS.items()} == {name: name for name in EVALUATIONS}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lose", "did you mean loss"),
        ("loss:stride=2", "loss has no setting 'stride'"),
        ("stride=2", "no task stands before it"),
        ("loss,loss:most=3", "loss is asked for twice"),
        ("loss:most=0", "most is 0; at least 1"),
    ],
)
def test_what_is_asked_wrongly_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse_evaluations(text)


def test_seeds_of_one_label_are_one_arm(two):
    answers = evaluate(two, [TextLoss()])
    (arm,) = answers.arms(answers.evaluations[0])
    single = [figures["loss"]["value"] for figures in answers.figures[0]]
    assert arm.figures["loss"]["value"] == pytest.approx(sum(single) / 2)
    assert (arm.figures["loss"]["over"], arm.seeds) == ("seeds", (0, 1))
    told = answers.to_json()
    assert told["tasks"][0]["arms"][0]["loss"] == arm.figures["loss"]
    assert [run["loss"]["value"] for run in told["tasks"][0]["runs"]] == single


def test_a_second_time_reads_no_weights(two, monkeypatch):
    first = evaluate(two, [TextLoss(), ByPosition()])
    monkeypatch.setattr(Subject, "load", lambda self: pytest.fail("the figures are kept"))
    assert evaluate(two, [TextLoss(), ByPosition()]).figures == first.figures


def test_other_settings_text_or_weights_are_asked_again(two, tmp_path):
    evaluate(two[:1], [TextLoss()])
    place = two[0].folder / module.FOLDER
    assert len(list(place.iterdir())) == 1
    evaluate(two[:1], [TextLoss(most=9)])
    assert len(list(place.iterdir())) == 2
    other = replace(two[0], text=replace(two[0].heldout, fingerprint="other"))
    evaluate([other], [TextLoss()])
    assert len(list(place.iterdir())) == 3


class Interrupted(ByPosition):
    """Stops in its second part for as long as `stops` says so."""

    stops: ClassVar[bool] = True
    done: ClassVar[list[int]] = []

    def _buckets(self, model, subject, step, work):
        self.done.append(step)
        if self.stops and len(self.done) == 2:
            raise KeyboardInterrupt
        return super()._buckets(model, subject, step, work)


def test_interrupted_work_goes_on_with_the_next_part(two):
    with pytest.raises(KeyboardInterrupt):
        evaluate(two[:1], [Interrupted()])
    Interrupted.stops = False
    answers = evaluate(two[:1], [Interrupted()])
    assert Interrupted.done == [16, 4, 4]
    plain = evaluate(two[:1], [ByPosition()])
    assert answers.figures == plain.figures


def test_progress_ends_where_it_was_to_end(two):
    seen = []
    evaluate(two, [TextLoss(), ByPosition()], progress=seen.append)
    assert seen[-1].done == seen[-1].total
    assert all(later.done >= earlier.done for earlier, later in pairwise(seen))
    assert seen[-1].seconds_left == 0


def test_a_length_beyond_the_positions_is_refused_before_work(tmp_path, draw):
    folder = run_folder(tmp_path / "run", tiny("gpt3"))
    with pytest.raises(InputError, match="its positions end at 16, and loss asks for 32 tokens"):
        evaluate([subject(folder, text_of(draw(40)))], [TextLoss(context=32)])
    assert not (folder / module.FOLDER).exists()


def test_mixed_tokenizers_are_refused(tmp_path, draw):
    folders = [run_folder(tmp_path / f"run{k}", tiny(seed=k), seed=k) for k in (0, 1)]
    shutil.rmtree(folders[1] / "tokenizer")
    CharacterTokenizer("abcdef").save(folders[1] / "tokenizer")
    text = tmp_path / "other.txt"
    text.write_bytes(b"\n".join(draw(300, 300)))
    with pytest.raises(InputError, match=r"run1: its tokenizer .* is not that of .*run0 .*evaluate them one by one"):
        subjects_of([str(folder) for folder in folders], [text], "text", torch.device("cpu"))
    assert len(subjects_of([str(folders[0])], [text], "text", torch.device("cpu"))) == 1


def test_the_page_holds_every_section_and_number(two):
    answers = evaluate(two, [TextLoss(), ByPosition()])
    shown = render(answers)
    (arm,) = answers.arms(answers.evaluations[0])
    assert f"{arm.figures['loss']['value']:.3f}" in shown
    assert 'id="positions"' in shown
    assert "2 seeds an arm" in shown
    assert render(answers) == shown
    assert [table.caption for table in tables(answers)] == ["Loss on held-out text", "Loss by position"]


def test_the_loss_of_each_set(draw, ask):
    parts = draw(30, 50, 20, 40)
    text, model = text_of(parts), tiny()
    figures = ask(TextLoss(), model, replace(text, split=replace(text.split, sets=["a", None, "a", None])))
    for name, chosen in (("a", (0, 2)), ("other", (1, 3))):
        alone = ask(TextLoss(), model, text_of([parts[index] for index in chosen]))
        assert figures["sets"][name]["value"] == pytest.approx(alone["loss"]["value"], rel=1e-6)
    assert "sets" not in ask(TextLoss(), model, text)
