"""Attention while a needle is asked for: maps made by hand, spans of a real item, refusals."""

import numpy as np
import pytest
import torch

from tests.evaluation.conftest import tiny
from tests.evaluation.test_retrieval import asked, items, prose  # noqa: F401 - a fixture
from windtunnel.errors import InputError
from windtunnel.evaluation.base import Arm
from windtunnel.evaluation.estimates import pooled
from windtunnel.evaluation.retrieval.attention import AttentionOnNeedle, shares_of
from windtunnel.evaluation.retrieval.needle import Needle
from windtunnel.evaluation.retrieval.prompts import keys_of
from windtunnel.mixers import AttendingLayer


def test_shares_of_maps_made_by_hand(asked, monkeypatch):  # noqa: F811
    """One head gives .5 to the needle's last token, .3 to the text, .2 to the first; the other's noise cancels."""
    subject = asked()
    model = subject.load().model
    prompt, one = items(Needle(depths=3), subject)[1]
    needle = int(np.flatnonzero(one.needle)[-1])
    other = int(np.flatnonzero(one.needle)[0]) - 2
    assert other > 0
    size = len(one.tokens)
    maps = torch.zeros(1, 2, size, size)
    maps[0, 0, :, [0, other, needle]] = torch.tensor([0.2, 0.3, 0.5])
    maps[0, 1, :, [other - 1, other, needle]] = torch.tensor([-0.25, 0.25, 0.5])
    for module in model.modules():
        if isinstance(module, AttendingLayer):
            monkeypatch.setattr(module, "attention_maps", lambda x, context: maps)
    (on_needle, noise, first) = shares_of(model, subject, prompt, one)
    for layer in (0, 1):
        assert on_needle[layer] == pytest.approx([(0.5 + 1.0) / 2, (0.5 + 0.5) / 2])
        assert noise[layer] == pytest.approx([(0.3 + 0.0) / 2, (0.3 + 0.5) / 2])
        assert first[layer] == pytest.approx([0.1, 0.1])


def test_spans_part_the_text(asked):  # noqa: F811
    subject = asked()
    prompt, one = items(Needle(depths=3), subject)[1]
    text = keys_of(subject.heldout.tokenizer, prompt, (0, prompt.begins))
    assert prompt.text[prompt.begins :].startswith("What are")
    assert int(text.sum()) == prompt.begins
    assert not (one.needle & ~text).any()
    assert not text[0]


@pytest.mark.parametrize("name", ["llama", "diff_transformer"])
def test_figures_of_a_model(asked, ask, name):  # noqa: F811
    task = AttentionOnNeedle(depths=2, items=2, length=300)
    figures = ask(task, tiny(name, context=300), prose(), context=300)
    total = sum(figures["mean"][span]["value"] for span in ("needle", "noise", "first token"))
    assert 0 < total < 1  # the rest is on the question
    assert figures["mean"]["needle"]["value"] == pytest.approx(
        sum(share["value"] for share in figures["share"]["needle"]) / 2
    )
    table, chart = task.parts([Arm("x", (0,), pooled([figures]))])
    assert len(table.rows[0]) == 7
    assert len(chart.series) == 2


def test_a_model_without_maps_is_refused(asked):  # noqa: F811
    with pytest.raises(InputError, match="none of its mixers has attention maps"):
        AttentionOnNeedle().check(asked("hawk"))
