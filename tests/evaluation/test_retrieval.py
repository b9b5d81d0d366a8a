"""Passkeys and needles: what stands where, scores against decoding and one full pass an item, refusals."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windtunnel as wt
from tests.evaluation.conftest import run_folder, text_of, tiny
from windtunnel.data.tokenizers import CharacterTokenizer
from windtunnel.errors import InputError
from windtunnel.evaluation.base import Arm
from windtunnel.evaluation.estimates import pooled
from windtunnel.evaluation.evaluate import evaluate
from windtunnel.evaluation.page import render
from windtunnel.evaluation.retrieval.drawing import Drawing, split_of
from windtunnel.evaluation.retrieval.haystack import Haystacks, boundaries, hide
from windtunnel.evaluation.retrieval.maps import compared, map_parts, p_value
from windtunnel.evaluation.retrieval.needle import MultiNeedle, Needle, Passkey
from windtunnel.evaluation.retrieval.prompts import Prompt, encoded, question
from windtunnel.evaluation.retrieval.scoring import reading, score, shares
from windtunnel.evaluation.subject import Subject
from windtunnel.report import HeatMap, Notice
from windtunnel.runs import find
from windtunnel.statistics import wilson_interval

SENTENCES = [b"The cat sat here. ", b"A dog ran off! ", b"Why? ", b"Nobody knew it, said the man. ", b"It rained.\n"]
NEEDLE = re.compile(r"One of the special magic numbers for (\w+) is: (\d{7})\.")


def prose(count: int = 60) -> Any:
    """Documents of sentences."""
    numbers = np.random.default_rng(0)
    return text_of([b"".join(SENTENCES[k] for k in numbers.integers(0, 5, count)) for _ in range(3)])


@pytest.fixture
def asked(tmp_path):
    """A subject with some text, for a model of some name."""

    def make(name: str = "llama", label: str = "it", seed: int = 0, context: int = 400, text: Any = None) -> Subject:
        folder = run_folder(tmp_path / f"{label}-{seed}", tiny(name, seed=seed, context=context), context, seed)
        return Subject(label, find(folder), torch.device("cpu"), (), text or prose())

    return make


def items(task: Any, subject: Subject, row: int = -1, index: int = 0) -> list[Any]:
    return task.questions(subject, Haystacks(subject.heldout), task.rows(subject)[row], index)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 40))
def test_sentences_are_put_where_sentences_begin(depths, size):
    haystack = b"".join((SENTENCES * 10)[:size]).decode()
    sentences = [f"Needle {k}." for k in range(len(depths))]
    hidden = hide(haystack, sentences, depths)
    left = hidden.text
    for (start, end), one in zip(hidden.spans, sentences, strict=True):
        assert hidden.text[start:end] == one
        left = left.replace(one, "", 1)
    assert left.split() == haystack.split()
    able = [place / max(len(haystack), 1) for place in boundaries(haystack)]
    for depth, found in zip(depths, hidden.depths, strict=True):
        assert found in able
        assert abs(found - depth) <= min(abs(each - depth) for each in able) + 1e-12


def test_depths_are_those_that_came_out():
    hidden = hide("One. Two. Three. Four.", ["X."], [0.4])
    assert hidden.text == "One. Two. X. Three. Four."
    assert hidden.depths == (10 / 22,)


def test_a_needle_item_asks_for_what_it_holds(asked):
    subject = asked()
    for prompt, one in items(Needle(depths=3), subject):
        name, number = NEEDLE.search(prompt.text).groups()  # type: ignore[union-attr]
        assert prompt.text.endswith(f"{name} is: {number}")
        assert prompt.references == (number,)
        assert split_of(name) == "test"
        assert len(one.tokens) <= 400
        assert len(one.tokens) > 360
        scored = one.targets[one.answer >= 0]
        assert bytes(scored.astype(np.uint8)).decode() == f" {number}"
        needle = prompt.needles[0]
        assert bytes(one.tokens[one.needle].astype(np.uint8)).decode() == prompt.text[slice(*needle)]
    assert [round(prompt.depth) for prompt, _ in items(Needle(depths=3), subject)][::2] == [0, 1]


def test_items_are_functions_of_their_index(asked):
    subject = asked()
    texts = [[prompt.text for prompt, _ in items(Needle(items=n), subject, index=3)] for n in (1, 9)]
    assert texts[0] == texts[1]
    assert texts[0] != [prompt.text for prompt, _ in items(Needle(), subject, index=4)]
    assert texts[0] != [prompt.text for prompt, _ in items(Needle(seed=1), subject, index=3)]


def test_names_of_the_two_splits_are_different():
    train, test = ({Drawing("x", split, 0, k).name() for k in range(200)} for split in ("train", "test"))
    assert len(train) > 190
    assert not train & test


def test_several_needles_ask_for_some_of_them(asked):
    subject = asked(context=600)
    task = MultiNeedle(depths=3)
    for row, (count, wanted) in enumerate([(1, 1), (2, 2), (4, 2), (6, 2)]):
        for place, (prompt, one) in enumerate(items(task, subject, row)):
            facts = dict(NEEDLE.findall(prompt.text))
            assert len(facts) == count
            given = re.findall(r"number for (\w+) is: (\d{7})", prompt.text.split("mentioned in the text?")[1])
            assert len(given) == len(prompt.answers) == wanted
            assert all(facts[name] == number for name, number in given)
            assert int(one.answer.max()) == wanted - 1
            if place != 1:
                assert round(prompt.depth) == place / 2


def test_passkeys_stand_in_noise(asked):
    for prompt, _ in items(Passkey(depths=3), asked(context=700)):
        (number,) = prompt.references
        assert len(number) == 5
        assert prompt.text.count(number) == 3
        assert prompt.text.startswith("There is an important info")


@pytest.mark.parametrize("name", ["llama", "griffin", "hawk", "diff_transformer"])
def test_sharing_what_is_common_changes_nothing(asked, name):
    subject = asked(name, context=560)
    run = subject.load()
    group = [one for _, one in items(Needle(depths=8), subject)]
    short = [one for _, one in items(Needle(depths=4, longest=300, lengths=1), subject)]
    assert shares(group)
    assert not shares(short)
    counted: list[int] = []
    both = score(run.model, [group, short], counted.append)
    alone = [score(run.model, [[one]], lambda n: None)[0][0] for one in group]
    for together, single in zip(both[0], alone, strict=True):
        assert together[0].nats == pytest.approx(single[0].nats, rel=1e-4)
        assert together[0].tokens == 8
    assert reading(group) < 0.75 * sum(len(one.tokens) for one in group)
    assert sum(counted) == reading(group) + len(short) * max(len(one.tokens) for one in short)


def test_nats_are_those_of_a_full_pass(asked):
    subject = asked()
    run = subject.load()
    (_, one), *_ = items(Needle(), subject)
    (answer,) = score(run.model, [[one]], lambda n: None)[0][0]
    double = run.spec.build().double()
    double.load_state_dict(run.model.state_dict())
    with torch.no_grad():
        logits = double(torch.from_numpy(one.tokens)[None]).logits[0].log_softmax(-1)
    due = np.flatnonzero(one.answer >= 0)
    assert answer.nats == pytest.approx(-sum(float(logits[k, one.targets[k]]) for k in due), rel=1e-4)


def test_exact_is_what_greedy_decoding_gives(asked):
    """The model's own greedy words, put in the answer's place, are exact; with one changed they are not."""
    subject = asked()
    run = subject.load()
    (prompt, one), *_ = items(Needle(), subject)
    before = one.tokens[: one.asked].tolist()
    words = wt.generate(run, before, tokens=4, temperature=0.0)
    for changed in (None, 0, 3):
        due = [*words]
        if changed is not None:
            due[changed] = (due[changed] + 1) % 256
        tokens = np.array([*before, *due[:-1]])
        answer = np.array([-1] * (len(before) - 1) + [0] * 4)
        targets = np.array([-1] * (len(before) - 1) + due)
        made = one._replace(tokens=tokens, targets=targets, answer=answer, needle=np.zeros(len(tokens), bool))
        (given,) = score(run.model, [[made]], lambda n: None)[0][0]
        assert given.exact == (changed is None)
    assert prompt.text


def test_figures_the_page_and_the_difference(asked):
    text = prose()
    subjects = [
        asked(name, label, seed, text=text) for name, label in (("llama", "a"), ("hawk", "c")) for seed in (0, 1)
    ]
    task = Needle(depths=2, lengths=2, items=3)
    answers = evaluate(subjects, [task])
    cell = answers.figures[0][0]["cells"][1][1]
    assert (cell["exact"]["n"], cell["exact"]["over"]) == (3, "items")
    assert cell["nats"]["value"] == pytest.approx(sum(cell["items"]["nats"]) / 24, rel=1e-4)
    assert answers.to_json()["tasks"][0]["chance"] == pytest.approx(1 / 9e6)
    assert task.compared(answers.arms(task))["c"]["p"] == [[1.0, 1.0], [1.0, 1.0]]
    page = render(answers)
    assert "Exact answers of c" in page
    assert "c less a" in page
    again = evaluate(subjects, [task])
    assert again.figures == answers.figures


def cell(right: list[int]) -> dict[str, Any]:
    share = sum(right) / len(right)
    estimate = {"value": share, "low": 0.0, "high": 1.0, "n": len(right), "over": "items"}
    nats = {**estimate, "over": "documents"}
    return {"exact": estimate, "nats": nats, "depth": 0.0, "items": {"right": right}}


def arm(label: str, *cells: list[int]) -> Arm:
    line = [cell(each) for each in cells]
    whole = {"exact": line[0]["exact"], "nats": line[0]["nats"]}
    columns = [str(k) for k in range(len(line))]
    costs = {"length": 64, "state_bytes": 1024, "read_bytes": 4096}
    figures = {"rows": ["64"], "columns": columns, "cells": [line], "by_row": [whole], "whole": whole, **costs}
    return Arm(label, (0,), figures)


def test_what_the_first_arm_does_not_find_is_a_floor(asked, ask):
    """An untrained model: the interval leaves room for other texts, and the page says that nothing follows."""
    subject = asked()
    figures = ask(Needle(items=2, depths=2, lengths=2), subject.load().model, subject.heldout, context=400)
    assert figures["floor"]
    whole = figures["whole"]["exact"]
    assert (whole["value"], whole["low"]) == (0.0, 0.0)
    assert whole["high"] == pytest.approx(wilson_interval(0, 2).ends[1])  # items of one number are one cluster
    notice, table, *_ = Needle().parts([Arm("tiny", (0,), figures)])
    assert isinstance(notice, Notice)
    assert "tiny finds less than 5 points more" in notice.html()
    assert table.caption == "A needle in a haystack: a floor, not a result"  # type: ignore[attr-defined]
    able = {**figures, "floor": False}
    assert not any(isinstance(part, Notice) for part in Needle().parts([Arm("tiny", (0,), able)]))


def test_differences_are_tested_on_the_items_that_differ():
    first, second = arm("a", [0] * 10, [1, 0, 1, 0]), arm("b", [1] * 10, [0, 1, 1, 0])
    assert p_value(first.figures["cells"][0][0], second.figures["cells"][0][0]) == pytest.approx(2 / 2**10)
    found = compared([first, second])["b"]
    assert found["exact"] == [[1.0, 0.0]]
    assert found["p"] == [[pytest.approx(4 / 2**10), 1.0]]  # Holm: times the two cells
    difference = map_parts("k", "t", "x", "y", [first, second])[-1]
    assert isinstance(difference, HeatMap)
    assert difference.marked == [[True, False]]


def test_over_seeds_the_test_is_welchs():
    from scipy import stats

    shares = [[0.1, 0.2, 0.4], [0.5, 0.7, 0.6, 0.9]]
    made = [
        pooled([{"exact": {"value": v, "low": 0.0, "high": 1.0, "n": 9, "over": "items"}} for v in values])
        for values in shares
    ]
    assert p_value(*made) == pytest.approx(stats.ttest_ind(*shares, equal_var=False).pvalue)


def test_what_cannot_be_asked_is_refused(asked):
    subject = asked("gpt3", context=300)
    with pytest.raises(InputError, match="positions end at 300, and needle asks for 400 tokens; needle:longest"):
        Needle(longest=400).check(subject)
    with pytest.raises(InputError, match="length=COUNT asks for a shorter one"):
        MultiNeedle(length=400).check(subject)
    with pytest.raises(InputError, match="leave no room for a text"):
        MultiNeedle().check(subject)
    with pytest.raises(InputError, match="longest is 100 tokens, and the shortest item has"):
        Needle(longest=100).check(subject)
    small = asked(label="small", text=text_of([b"A few words. "]))
    with pytest.raises(InputError, match="name a longer text by --data"):
        Needle(lengths=1).check(small)
    with pytest.raises(InputError, match="asked is 3 of needles 2"):
        MultiNeedle(needles=(2,), asked=(3,))


def test_a_tokenizer_without_the_needed_tokens_is_refused():
    letters = CharacterTokenizer("abc .")
    with pytest.raises(InputError, match="is not in the alphabet"):
        encoded(letters, "cab 1")


def test_spans_are_found_in_tokens_of_several_bytes():
    """Tokens of two characters: one that overlaps a span belongs to it."""

    class Pairs(CharacterTokenizer):
        def __init__(self) -> None:
            super().__init__("abcdefgh")
            self._pieces = [b"ab", b"cd", b"ef", b"gh", b""]
            self.token_bytes = np.array([2, 2, 2, 2, 0])
            self.end_of_text = 4

        def encode(self, text: str | bytes) -> Any:
            return np.array([(ord(letter) - 97) // 2 for letter in str(text)[::2]])

    one = question(Pairs(), Prompt("abcdefgh", ((5, 8),), ((1, 2),), 0.0))
    assert one.tokens.tolist() == [4, 0, 1, 2]
    assert one.targets.tolist() == [-1, -1, 2, 3]
    assert one.needle.tolist() == [False, True, False, False]
    assert one.asked == 3
