"""What a token costs: bytes counted against tensors, a median against a plain one, lengths that are refused."""

import numpy as np
import pytest
import torch

from tests.evaluation.conftest import text_of, tiny
from windtunnel.errors import InputError
from windtunnel.evaluation import decoding
from windtunnel.evaluation.base import Arm
from windtunnel.evaluation.decoding import Decoding
from windtunnel.ledger import step_bytes
from windtunnel.root import ModelState


def held(state: ModelState) -> int:
    return sum(part.nbytes for block in state.blocks for part in block if isinstance(part, torch.Tensor))


@pytest.mark.parametrize(("name", "tied"), [("llama", False), ("hawk", True)])
def test_state_and_bytes_are_those_of_the_tensors(ask, draw, name, tied):
    model = tiny(name)
    figures = ask(Decoding(length=12, steps=3), model, text_of(draw(40)))
    with torch.no_grad():
        out = model(torch.zeros(1, 12, dtype=torch.long), state=model.initial_state(1))
    assert figures["state_bytes"] == held(out.state)
    read = sum(each.nbytes for each in model.parameters())
    if not tied:  # of a table that is only looked up, one row
        read += 4 * model.spec.width - model.embedding.weight.nbytes
    assert figures["read_bytes"] == read + figures["state_bytes"]
    assert figures["milliseconds"]["n"] == 3


def test_bytes_follow_the_width_of_the_weights():
    model = tiny()
    whole = step_bytes(model, 8)
    assert step_bytes(model.to(torch.bfloat16), 8) == tuple(size // 2 for size in whole)


def test_the_median_has_an_interval_from_its_order_statistics():
    seconds = np.random.default_rng(0).permutation(np.arange(1, 33)) / 1e3
    found = decoding._median(list(seconds))
    assert found["value"] == pytest.approx(16.5)
    assert (found["low"], found["high"]) == pytest.approx((10.0, 23.0))  # the 10th and the 23rd of 32
    assert decoding._median([0.002])["low"] is None


def test_a_table_that_ends_before_the_steps_do_is_refused(ask, draw):
    with pytest.raises(InputError, match=r"its positions end at 16, and decoding asks for 51 tokens; decoding:length="):
        ask(Decoding(), tiny("gpt3"), text_of(draw(40)))


def test_the_table_says_what_stood_before():
    spent = {"value": 1.5, "low": 1.0, "high": 2.0, "n": 32, "over": "steps"}
    figures = {"length": 2048, "state_bytes": 1024, "read_bytes": 4096, "milliseconds": spent}
    (table,) = Decoding().parts([Arm("a", (0,), figures)])
    assert list(table.rows[0])[:2] == ["a", "2,048"]  # type: ignore[attr-defined]
    assert "1.50 [1.00, 2.00]" in table.rows[0]  # type: ignore[attr-defined]
