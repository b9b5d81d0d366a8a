"""Held-out loss against plain loops over documents, and the invariants of bits per byte."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import windtunnel
from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.evaluation.loss import constant_losses, evaluate_loss
from windtunnel.selftest.bits import BYTES, END_OF_TEXT, Documents, Uniform, documents, drawn_texts


@pytest.fixture(scope="module")
def texts() -> list[bytes]:
    return drawn_texts()


@pytest.fixture(scope="module")
def model() -> Any:
    return windtunnel.build(recipes.get("llama")(layers=2, width=32, heads=2, vocab=257, context=8), seed=3)


@pytest.mark.parametrize("symbols", [257, 256])
def test_uniform_model_gives_the_logarithm_of_its_symbols(symbols: int, texts: list[bytes]) -> None:
    """A byte costs log2 V bits: 257 where the special keeps its share of probability, though it is never a target."""
    losses = evaluate_loss(Uniform(symbols), documents(texts), BYTES, context=8)
    assert losses.bits_per_byte == pytest.approx(math.log2(symbols), rel=1e-6)
    assert losses.loss == pytest.approx(math.log(symbols), rel=1e-6)
    assert losses.bytes.tolist() == [len(text) for text in texts]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_documents_one_by_one(texts: list[bytes], model: Any, batch_size: int) -> None:
    losses = evaluate_loss(model, documents(texts), BYTES, context=8, batch_size=batch_size)
    buckets: dict[int, list[float]] = {}
    for index, text in enumerate(texts):
        ids = torch.tensor([END_OF_TEXT, *text])
        total = 0.0
        for start in range(0, len(text), 8):
            window = ids[start : start + 9]
            with torch.no_grad():
                logits = model(window[None, :-1]).logits[0].double()
            for place, target in enumerate(window[1:]):
                nats = float(torch.logsumexp(logits[place], 0) - logits[place, target])
                buckets.setdefault((place + 1).bit_length() - 1, []).append(nats)
                total += nats
        assert losses.nats[index] == pytest.approx(total, rel=1e-5, abs=1e-9)
    assert losses.bucket_tokens.tolist() == [len(buckets[k]) for k in range(4)]
    assert losses.bucket_nats.tolist() == pytest.approx([sum(buckets[k]) for k in range(4)], rel=1e-5)
    assert losses.tokens.sum() == sum(map(len, texts)) == losses.bucket_tokens.sum()


def test_specials_inside_a_document_count_for_nothing(model: Any) -> None:
    plain = documents([b"wing", b"tip"])
    marked = Documents(np.insert(plain.tokens, 2, END_OF_TEXT), np.array([0, 6, 10]), plain.bytes, plain.names)
    losses = evaluate_loss(model, marked, BYTES, context=8)
    assert losses.tokens.tolist() == [4, 3]
    assert losses.bytes.tolist() == [4, 3]
    assert losses.nats[1] == pytest.approx(evaluate_loss(model, plain, BYTES, context=8).nats[1], rel=1e-6)


def test_a_limit_takes_whole_documents_and_cuts_the_last(texts: list[bytes], model: Any) -> None:
    split = documents(texts)
    whole = evaluate_loss(model, split, BYTES, context=8)
    for limit in range(1, 90, 7):
        losses = evaluate_loss(model, split, BYTES, context=8, max_tokens=limit)
        assert losses.tokens.sum() == min(limit, sum(map(len, texts)))
        complete = [row for row, index in enumerate(losses.documents) if losses.tokens[row] == len(texts[index])]
        assert len(losses.documents) - len(complete) <= 1
        same = whole.nats[losses.documents[complete]]
        np.testing.assert_allclose(losses.nats[complete], same, rtol=1e-5, atol=1e-9)
    reordered = Documents(split.tokens, split.offsets, split.bytes, [f"other {name}" for name in split.names])
    assert (
        evaluate_loss(model, reordered, BYTES, context=8, max_tokens=8).documents.tolist() != losses.documents.tolist()
    )


def test_lost_bytes_are_noticed(model: Any) -> None:
    split = documents([b"wing"])
    with pytest.raises(AssertionError, match="0: its tokens spell 4 bytes, the document has 5"):
        evaluate_loss(model, Documents(split.tokens, split.offsets, np.array([5]), ["0"]), BYTES, context=8)


def test_nothing_to_score_is_an_input_error(model: Any) -> None:
    with pytest.raises(InputError, match="hold out more text"):
        evaluate_loss(model, documents([b""]), BYTES, context=8)


def test_evaluation_leaves_the_model_as_it_was(model: Any) -> None:
    model.train()
    evaluate_loss(model, documents([b"wing"]), BYTES, context=8)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.loss(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64)).total.backward()


def test_constant_losses_score_the_same_tokens(texts: list[bytes], model: Any) -> None:
    split = documents(texts)
    real = evaluate_loss(model, split, BYTES, context=8, max_tokens=50)
    constant = constant_losses(split, BYTES, 8, 50, loss=2.5)
    assert constant.documents.tolist() == real.documents.tolist()
    assert constant.tokens.tolist() == real.tokens.tolist()
    assert constant.loss == 2.5
