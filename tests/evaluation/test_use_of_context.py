"""Context gain, shuffled prefixes and hits: a full pass for every target, and models that cannot see far."""

import hashlib
import math

import numpy as np
import pytest

from tests.evaluation.conftest import END, text_of, tiny, token_nats
from windtunnel import build
from windtunnel.errors import InputError
from windtunnel.evaluation.context_gain import ContextGain
from windtunnel.evaluation.hits import Hits, frequent_grams, gap, grams, seen_before
from windtunnel.evaluation.shuffled_prefix import ShuffledPrefix


def near_sighted(window):
    """Attends to `window` tokens in each of two layers, and so sees 2 window - 1."""
    plain = tiny()
    blocks = tuple(block.replace(mixer=block.mixer.replace(window=window)) for block in plain.spec.blocks)
    model = build(plain.spec.replace(blocks=blocks), seed=0)
    model.load_state_dict(plain.state_dict())
    return model


@pytest.fixture(scope="module")
def model():
    return tiny()


def test_context_gain_against_one_pass_a_target(model, ask, draw):
    texts = draw(16, 35)
    figures = ask(ContextGain(shortest=4), model, text_of(texts))
    pieces = [[END, *texts[0]], [END, *texts[1][:16]], list(texts[1][15:32])]
    for entry in figures["losses"]:
        size = entry["context"]
        nats = []
        for ids in pieces:
            for place in range(9, 17):  # targets of the later half
                block = (place - 9) // (size // 2)
                start = 8 + block * size // 2 - size // 2
                nats.append(token_nats(model, ids[start : place + 1])[-1])
        assert entry["loss"]["value"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert [entry["context"] for entry in figures["losses"]] == [4, 8, 16]
    losses = [entry["loss"]["value"] for entry in figures["losses"]]
    assert [step["gain"]["value"] for step in figures["gains"]] == pytest.approx([-x for x in np.diff(losses)])
    assert figures["whole"]["value"] == pytest.approx(losses[0] - losses[-1])


def test_what_sees_no_further_gains_nothing(ask, draw):
    """Two layers of windows of 2 see 3 tokens, which the shortest window of 4 shows every target."""
    for window in (1, 2):
        figures = ask(ContextGain(shortest=4), near_sighted(window), text_of(draw(16, 35)))
        assert [step["gain"]["value"] for step in figures["gains"]] == pytest.approx([0.0, 0.0], abs=1e-6)
    seeing = ask(ContextGain(shortest=4), tiny(), text_of(draw(16, 35)))
    assert abs(seeing["whole"]["value"]) > 1e-3


@pytest.mark.parametrize(("evaluation", "said"), [
    (ContextGain(shortest=16), "cannot be halved"),
    (ContextGain(context=64), "no document has 64 tokens, the longest has 35; context-gain:context=COUNT"),
    (ShuffledPrefix(targets=12), "none is further back than 8"),
    (ShuffledPrefix(context=32), "only one document has 32 tokens"),
    (Hits(context=5), "show no 6-gram twice"),
])  # fmt: skip
def test_what_the_text_cannot_answer_is_refused(model, ask, draw, evaluation, said):
    with pytest.raises(InputError, match=said):
        ask(evaluation, model, text_of(draw(16, 35)))


def test_shuffled_prefix_against_one_pass_a_target(model, ask, draw):
    texts = draw(16, 16, 16)
    figures = ask(ShuffledPrefix(targets=2), model, text_of(texts))
    rows = [[END, *text] for text in texts]
    order = sorted(range(3), key=lambda index: hashlib.sha256(str(index).encode()).digest())
    lost = []
    for place, index in enumerate(order):
        other = rows[order[(place + 1) % 3]]
        changed = other[: 16 - 2 - 8 + 1] + rows[index][16 - 2 - 8 + 1 :]
        lost += [token_nats(model, ids)[-2:] for ids in (changed, rows[index])]
    changed, intact = np.array(lost[::2]), np.array(lost[1::2])
    assert figures["lost"][0]["kept"] == 8
    assert figures["lost"][0]["nats"]["value"] == pytest.approx((changed - intact).mean(), rel=1e-4)
    assert figures["loss"]["value"] == pytest.approx(intact.mean(), rel=1e-5)


def test_a_prefix_out_of_sight_costs_nothing(ask, draw):
    figures = ask(ShuffledPrefix(context=32), near_sighted(4), text_of(draw(40, 50)))
    assert [lost["nats"]["value"] for lost in figures["lost"]] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert figures["memory"] == 8
    far = ask(ShuffledPrefix(context=32), near_sighted(20), text_of(draw(40, 50)))
    assert abs(far["lost"][0]["nats"]["value"]) > 1e-4


def test_hits_against_a_loop(draw):
    text = np.array([END, *draw(60, letters=3)[0]])
    frequent, limit = frequent_grams(text, 3, 257, 80.0, None)
    counts: dict[tuple[int, ...], int] = {}
    for end in range(3, len(text) + 1):
        counts[tuple(text[end - 3 : end])] = counts.get(tuple(text[end - 3 : end]), 0) + 1
    assert limit == int(np.percentile(list(counts.values()), 80))
    assert len(frequent) == sum(count > limit for count in counts.values()) > 0
    expected = []
    for place in range(1, len(text)):
        gram = tuple(text[place - 2 : place + 1])
        earlier = [tuple(text[end - 3 : end]) for end in range(3, place + 1)]
        expected.append(len(gram) == 3 and gram in earlier and counts[gram] <= limit)
    assert seen_before(text, 3, 257, frequent).tolist() == expected
    assert sum(expected) > 0


def test_different_grams_have_different_numbers():
    ids = np.random.default_rng(0).integers(0, 257, 5000)
    distinct = {tuple(ids[place : place + 6]) for place in range(len(ids) - 5)}
    assert len(np.unique(grams(ids, 6, 257))) == len(distinct)


def test_hits_and_rest_make_up_the_loss(model, ask, draw):
    texts = draw(40, 25, letters=2)
    figures = ask(Hits(order=3, limit=1000), model, text_of(texts))
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for text in texts:
        for start in range(0, len(text), 16):
            ids = [END, *text][start : start + 17]
            hits = seen_before(np.array(ids), 3, 257, np.zeros(0, np.uint64))
            for nats, hit in zip(token_nats(model, ids), hits, strict=True):
                kinds[bool(hit)].append(nats)
    for name, hit in (("hits", True), ("rest", False)):
        assert figures[name]["tokens"] == len(kinds[hit]) > 0
        assert figures[name]["loss"]["value"] == pytest.approx(np.mean(kinds[hit]), rel=1e-5)
    assert figures["share"] == pytest.approx(len(kinds[True]) / 65)


def test_a_text_without_hits_has_no_loss_on_them(model, ask):
    figures = ask(Hits(), model, text_of([bytes(range(30))]))
    assert figures["hits"]["loss"]["value"] is None
    assert figures["rest"]["tokens"] == 30


def test_the_gap_is_hits_where_the_rest_is_equal():
    def of(hits, rest):
        value = 0.25 * hits + 0.75 * rest
        return {"loss": {"value": value}, "hits": {"loss": {"value": hits}}, "share": 0.25}

    assert gap(of(2.0, 3.0), of(4.0, 3.0)) == pytest.approx(1.0)
    assert gap(of(2.0, 3.0), of(2.0, 3.5)) == 0.0
    assert math.isclose(gap(of(2.0, 3.0), of(4.0, 3.5)) or 0.0, 0.5 / 0.875)
    assert gap(of(2.0, 3.0), of(2.0, 3.0)) is None
