"""RULER-derived items, answered from their text alone."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from tests.evaluation.test_retrieval import asked, prose  # noqa: F401 - a fixture
from windtunnel.errors import InputError
from windtunnel.evaluation.base import Arm
from windtunnel.evaluation.retrieval import ruler
from windtunnel.evaluation.retrieval.grid import Row
from windtunnel.evaluation.retrieval.haystack import Haystacks
from windtunnel.evaluation.retrieval.prompts import Prompt
from windtunnel.evaluation.retrieval.ruler import KINDS, Ruler
from windtunnel.report import Table

NEEDLE = re.compile(r"One of the special magic numbers for (\w+) is: (\d{7})\.")


def prompt_of(kind, length=2500, index=0):
    task = Ruler(kinds=(kind,))
    (prompt,) = task.prompts(Haystacks(prose()), Row("", length, str(length)), index, length)
    return prompt, prompt.text[: prompt.begins], prompt.text[prompt.begins :]


def solved(kind, body, question):
    facts = NEEDLE.findall(body)
    if kind in ("single-noise", "multikey"):
        return (dict(facts)[question.split(" for ")[1].split()[0]],)
    if kind == "multivalue":
        return tuple(number for _, number in facts)
    if kind == "multiquery":
        names = re.findall(r"number for (\w+) is:", question)
        return tuple(dict(facts)[name] for name in names)
    if kind == "variables":
        known, number = [], re.search(r"\d{5}", question)[0]  # type: ignore[index]
        for name, value in re.findall(r"VAR (\w+) = (.+?)\.", body):
            assert value == number if not known else value == f"VAR {known[-1]}"
            known.append(name)
        return tuple(known)
    words = re.findall(r"\d+\. (\w+)", body) if kind == "common-words" else re.findall(r"\w+", body)
    count = Counter(words).most_common()
    size = 10 if kind == "common-words" else 3
    assert count[size - 1][1] > count[size][1]
    found = [word for word, _ in count[:size]]
    return tuple(sorted(found)) if kind == "common-words" else tuple(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2500])
def test_items_can_be_answered_from_their_text(kind, length):
    for index in (0, 1):
        prompt, body, question = prompt_of(kind, length, index)
        assert prompt.references == solved(kind, body, question)
        if kind == "multikey" and length > 1:
            assert len(NEEDLE.findall(body)) > 30


def test_items_fit_their_length_and_figures_are_given(asked, ask):  # noqa: F811
    task = Ruler(kinds=("multikey", "variables", "frequent-words"), lengths=1, items=1)
    subject = asked(context=900)
    task.check(subject)
    for _, one in task.questions(subject, Haystacks(subject.heldout), task.rows(subject)[0], 0):
        assert 700 < len(one.tokens) <= 900
    figures = ask(task, subject.load().model, prose(), context=900)
    assert [cell["items"]["answers"] for cell in figures["cells"][0]] == [[1], [5], [3]]
    assert task.chance(subject) == pytest.approx((1 / 9e6 + 2 * 4 / 343_000) / 3)


def test_answers_are_found_in_what_is_written(asked, ask, monkeypatch):  # noqa: F811
    task = Ruler(kinds=("multikey", "multiquery"), lengths=1, items=2, generate=True)
    subject = asked(context=900)
    seen = []

    def write(run, prompts, tokens, temperature):
        """The first number that the prompt's text holds for the first name that is asked for, and nothing else."""
        seen.extend(bytes(prompt[1:]).decode() for prompt in prompts)
        assert temperature == 0.0
        written = []
        for prompt in seen[-len(prompts) :]:
            name = prompt.split("mentioned in the text?")[1].split(" for ")[1].split()[0]
            written.append(list(dict(NEEDLE.findall(prompt))[name].encode())[:tokens])
        return written

    monkeypatch.setattr(ruler, "generate", write)
    figures = ask(task, subject.load().model, subject.heldout, context=900)
    (line,) = figures["cells"]
    assert [cell["found"]["value"] for cell in line] == [1.0, 0.25]
    assert figures["whole"]["found"]["value"] == pytest.approx(4 / 10)
    assert all(re.search(r"is:$", prompt) for prompt in seen)
    (table,) = (part for part in task.parts([Arm("it", (0,), figures)]) if isinstance(part, Table))
    assert "found" in table.columns


def test_writing_ends_with_the_context(asked):  # noqa: F811
    subject = asked(context=300)
    long = Ruler(kinds=("multikey",), lengths=1, longest=600, items=1)
    long.check(subject)
    with pytest.raises(InputError, match="writes within its context of 300, and ruler asks for 600 tokens"):
        long.replace(generate=True).check(subject)


def test_a_model_answers_in_its_own_words(asked):  # noqa: F811
    """Two tokens that are surely written next to each other: an answer of the model's own making is found."""
    subject = asked()
    run = subject.load()
    task = Ruler(kinds=("multikey",), lengths=1, items=1)
    ((prompt, one),) = task.questions(subject, Haystacks(subject.heldout), task.rows(subject)[0], 0)
    text = list(one.tokens[: one.asked])
    for _ in range(2):
        text.append(int(run.model(torch.tensor([text])).logits[0, -1].argmax()))
    said = run.tokenizer.decode(np.array(text[-2:]))  # type: ignore[union-attr]
    own = Prompt(said.upper(), ((0, len(said)),), (), 0.0)
    strange = Prompt("#@", ((0, 2),), (), 0.0)
    assert ruler.found_in_words(run, [(own, one), (strange, one), (prompt, one)]) == [1.0, 0.0, 0.0]


def test_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="kinds holds 'qa'; known: single-noise"):
        Ruler(kinds=("qa",))
