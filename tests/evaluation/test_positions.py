"""Loss by position against a full pass for every target, and what its buckets must add up to."""

import math

import numpy as np
import pytest

from tests.evaluation.conftest import END, text_of, tiny, token_nats
from windtunnel.evaluation.by_position import ByPosition, windows
from windtunnel.evaluation.text_loss import TextLoss


@pytest.fixture(scope="module")
def model():
    return tiny()


def test_windows_score_every_target_once():
    for count in (1, 7, 8, 9, 30):
        for stride in (1, 3, 8):
            made = list(windows(0, count, 8, stride))
            assert [place for window in made for place in range(window.new, window.last)] == list(range(count))
            assert all(window.last - window.first <= 8 for window in made)


@pytest.mark.parametrize(("context", "stride"), [(8, 3), (8, 1)])
def test_sliding_windows_against_one_pass_a_target(model, ask, draw, context, stride):
    texts = draw(21, 9, 1)
    figures = ask(ByPosition(context=context, stride=stride), model, text_of(texts))["sliding"]
    buckets: dict[int, list[float]] = {}
    for text in texts:
        ids = [END, *text]
        for place in range(1, len(ids)):
            window = 0 if place <= context else -(-(place - context) // stride)
            seen = ids[window * stride : place + 1]
            buckets.setdefault(place.bit_length() - 1, []).append(token_nats(model, seen)[-1])
    assert [bucket["tokens"] for bucket in figures["buckets"]] == [len(buckets[k]) for k in sorted(buckets)]
    for bucket, k in zip(figures["buckets"], sorted(buckets), strict=True):
        assert bucket["loss"]["value"] == pytest.approx(np.mean(buckets[k]), rel=1e-5)
        assert bucket["bits_per_byte"]["value"] == pytest.approx(np.mean(buckets[k]) / math.log(2), rel=1e-5)
        assert bucket["from"] == 2**k


def test_disjoint_buckets_average_to_the_loss(model, ask, draw):
    text = text_of(draw(40, 3, 17))
    figures = ask(ByPosition(), model, text)
    whole = ask(TextLoss(), model, text)
    buckets = figures["disjoint"]["buckets"]
    total = sum(bucket["loss"]["value"] * bucket["tokens"] for bucket in buckets)
    assert total / sum(bucket["tokens"] for bucket in buckets) == pytest.approx(whole["loss"]["value"], rel=1e-6)
    assert figures["disjoint"]["all"]["loss"] == pytest.approx(whole["loss"])
    assert figures["disjoint"]["all"]["bits_per_byte"] == pytest.approx(whole["bits_per_byte"])


def test_windows_that_slide_by_their_length_are_disjoint(model, ask, draw):
    figures = ask(ByPosition(stride=16), model, text_of(draw(40, 17)))
    assert figures["sliding"]["all"] == figures["disjoint"]["all"]


def test_a_limit_cuts_the_last_document(model, ask, draw):
    assert ask(ByPosition(most=25), model, text_of(draw(20, 20)))["disjoint"]["all"]["tokens"] == 25
