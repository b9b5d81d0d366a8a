"""The engine gives each request what it would get alone, one token after another, whatever shares its batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

import windtunnel as wt
from tests.recipes.cases import CASES, model_of, spec_of
from windtunnel.data.tokenizers import ByteTokenizer
from windtunnel.errors import InputError
from windtunnel.inference.batch import limit_of
from windtunnel.inference.engine import Engine, EngineSettings, QueueFull
from windtunnel.inference.request import Piece, Request
from windtunnel.inference.sampling import Sampling
from windtunnel.inference.states import tensors
from windtunnel.model import LanguageModel
from windtunnel.root import ModelLayer

# Grids are sampled cell by cell, all rows of a batch at the same one.
SERVED = [case for case in CASES if isinstance(spec_of(case), LanguageModel)]
GREEDY = Sampling(temperature=0)
PROMPTS = (3, 17, 1, 9, 26, 5)


def prompts(vocab: int) -> list[tuple[int, ...]]:
    draws = torch.Generator().manual_seed(4)
    return [tuple(torch.randint(0, vocab, (size,), generator=draws).tolist()) for size in PROMPTS]


def test_what_cannot_decode_rows_at_different_places_says_so() -> None:
    with pytest.raises(InputError, match="same cell"):
        Engine(model_of("axial_image"))


@torch.no_grad()
def alone(model: ModelLayer, prompt: tuple[int, ...], count: int) -> list[int]:
    """The likeliest next token, again and again, each from a full pass."""
    text = list(prompt)
    for _ in range(count):
        logits: Tensor = model(torch.tensor([text])).logits
        text.append(int(logits[0, -1].argmax()))
    return text[len(prompt) :]


def served(engine: Engine, requests: list[Request]) -> list[list[Piece]]:
    """Everything that comes out, request by request."""
    numbers = [engine.submit(request) for request in requests]
    found: dict[int, list[Piece]] = {number: [] for number in numbers}
    while engine.busy:
        for piece in engine.step():
            found[piece.request].append(piece)
    return [found[number] for number in numbers]


@pytest.mark.parametrize("case", SERVED)
def test_requests_in_one_batch_get_what_they_get_alone(case: str) -> None:
    model = model_of(case, dtype=torch.float64)
    engine = Engine(model, settings=EngineSettings(slots=3, chunk=4))
    asked = [Request(prompt=prompt, sampling=GREEDY, tokens=12) for prompt in prompts(model.spec.vocab)]
    for pieces, request in zip(served(engine, asked), asked, strict=True):
        assert [piece.token for piece in pieces] == alone(model, request.prompt, 12)
        assert [piece.finish for piece in pieces] == [None] * 11 + ["length"]


def test_same_seed_same_text_whatever_the_batch() -> None:
    model = model_of("llama")
    asked = [
        Request(prompt=prompt, sampling=Sampling(seed=k, top_p=0.9), tokens=15)
        for k, prompt in enumerate(prompts(model.spec.vocab))
    ]
    together = served(Engine(model, settings=EngineSettings(slots=6)), asked)
    for request, pieces in zip(asked, together, strict=True):
        (single,) = served(Engine(model, settings=EngineSettings(slots=1)), [request])
        assert [piece.token for piece in single] == [piece.token for piece in pieces]
    other = served(Engine(model), [Request(prompt=asked[0].prompt, sampling=Sampling(seed=99), tokens=15)])
    assert [piece.token for piece in other[0]] != [piece.token for piece in together[0]]


def test_short_prompts_share_a_step_and_long_ones_take_several() -> None:
    engine = Engine(model_of("llama"), settings=EngineSettings(slots=4, chunk=8))
    for size in (3, 2, 9, 2):
        engine.submit(Request(prompt=(1,) * size, tokens=9))
    first = engine.step()  # 3 + 2 tokens, and 3 of the 9
    assert [piece.request for piece in first] == [1, 2]
    assert engine.batch.lengths == [3, 2, 3, 0]
    second = engine.step()  # the other 6, 2, and a token for each of the first two
    assert sorted(piece.request for piece in second) == [1, 2, 3, 4]
    assert engine.batch.lengths == [4, 3, 9, 2]


def test_a_full_context_stops_or_slides() -> None:
    model = model_of("llama", dtype=torch.float64)
    prompt = prompts(model.spec.vocab)[1]
    stopping = Engine(model, settings=EngineSettings(context=24, chunk=5))
    (pieces,) = served(stopping, [Request(prompt=prompt, sampling=GREEDY, tokens=50)])
    assert len(pieces) == 24 - len(prompt) + 1
    assert pieces[-1].finish == "limit"
    sliding = Engine(model, settings=EngineSettings(context=24, chunk=5, at_limit="slide"))
    (pieces,) = served(sliding, [Request(prompt=prompt, sampling=GREEDY, tokens=50)])
    assert len(pieces) == 50
    assert sum(piece.slid for piece in pieces) == 4
    text = list(prompt)
    for piece in pieces:
        if len(text) > 24:
            text = text[-12:]
        assert piece.token == alone(model, tuple(text), 1)[0]
        text.append(piece.token or 0)


def test_constant_state_goes_on_for_ever() -> None:
    model = model_of("gpt3", banded=False)
    assert limit_of(model) == model.spec.context
    windowed = wt.build(windowed_spec())
    assert limit_of(windowed) is None
    engine = Engine(windowed, settings=EngineSettings(slots=2, chunk=3))
    before = [tensor.data_ptr() for block in engine.batch.state.blocks for tensor in tensors(block)]
    (pieces,) = served(engine, [Request(prompt=(1, 2, 3), sampling=GREEDY, tokens=200)])
    assert len(pieces) == 200
    assert [tensor.data_ptr() for block in engine.batch.state.blocks for tensor in tensors(block)] == before
    assert [piece.token for piece in pieces] == alone(windowed, (1, 2, 3), 200)


def windowed_spec() -> Any:
    spec = wt.recipes.get("llama")(vocab=30, layers=2, width=32, context=16)
    blocks = tuple(block.replace(mixer=block.mixer.replace(window=5)) for block in spec.blocks)
    return spec.replace(blocks=blocks)


def test_text_stops_and_logprobs() -> None:
    model = wt.build(wt.recipes.get("llama")(vocab=ByteTokenizer().vocab, layers=1, width=32, context=64))
    engine = Engine(model, ByteTokenizer(), EngineSettings(slots=2))
    free = Request(prompt=(65, 66), sampling=Sampling(seed=1), tokens=30, top_logprobs=3, ignore_end=True)
    (pieces,) = served(engine, [free])
    text = "".join(piece.text for piece in pieces)
    assert text == ByteTokenizer().decode([piece.token for piece in pieces if piece.token is not None])
    for piece in pieces:
        assert len(piece.top) == 3
        assert piece.logprob is not None
        assert piece.top[0].logprob >= piece.logprob
    stop = text[5:7]
    (cut,) = served(engine, [Request(prompt=(65, 66), sampling=Sampling(seed=1), tokens=30, stop=(stop,))])
    assert "".join(piece.text for piece in cut) == text[: text.index(stop)]
    assert cut[-1].finish == "stop"


def test_cancelling_frees_the_row_for_others() -> None:
    model = model_of("llama", dtype=torch.float64)
    engine = Engine(model, settings=EngineSettings(slots=2, chunk=4))
    one, two, three = (engine.submit(Request(prompt=prompt, sampling=GREEDY, tokens=12)) for prompt in prompts(97)[:3])
    found: dict[int, list[int | None]] = {one: [], two: [], three: []}
    for step in range(60):
        if step == 8:
            last = engine.cancel(one)
            assert last is not None
            assert last.finish == "cancelled"
        for piece in engine.step():
            found[piece.request].append(piece.token)
    assert not engine.busy
    assert engine.cancel(one) is None
    assert found[two] == alone(model, prompts(97)[1], 12)
    assert found[three] == alone(model, prompts(97)[2], 12)


def test_logits_that_are_no_numbers_end_one_request_alone() -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.embedding.weight[7] = torch.nan
    engine = Engine(model, settings=EngineSettings(slots=2))
    bad, good = served(
        engine,
        [Request(prompt=(7, 1), sampling=GREEDY, tokens=3), Request(prompt=(1, 2), sampling=GREEDY, tokens=3)],
    )
    assert [piece.finish for piece in bad] == ["error"]
    assert "not numbers" in bad[0].message
    assert good[-1].finish == "length"


@pytest.mark.parametrize("draft", [None, "lookup"])
def test_rows_of_padding_are_no_tokens(draft: Any) -> None:
    model = wt.build(wt.recipes.get("llama")(vocab=300, layers=1, width=32, context=64))
    engine = Engine(model, ByteTokenizer(), EngineSettings(slots=2), draft)
    with pytest.raises(InputError, match="token 257 is not in the vocabulary of 257"):
        engine.submit(Request(prompt=(65, 257, 66, 65)))
    asked = Request(prompt=(65, 256, 66, 65), sampling=Sampling(repetition_penalty=1.2), tokens=8, ignore_end=True)
    (pieces,) = served(engine, [asked])
    assert all(piece.token is not None and piece.token < 257 for piece in pieces)


def test_what_cannot_be_served_is_refused() -> None:
    model = model_of("llama")
    engine = Engine(model, settings=EngineSettings(slots=1, queue=2, context=8))
    with pytest.raises(InputError, match=r"token 97.*vocabulary of 97"):
        engine.submit(Request(prompt=(97,)))
    with pytest.raises(InputError, match="8 tokens leave no room in a context of 8"):
        engine.submit(Request(prompt=(1,) * 8))
    for _ in range(2):
        engine.submit(Request(prompt=(1,)))
    with pytest.raises(QueueFull):
        engine.submit(Request(prompt=(1,)))
    with pytest.raises(InputError, match="no token"):
        Request(prompt=())
    with pytest.raises(InputError, match="tokens"):
        Request(prompt=(1,), tokens=0)
    with pytest.raises(InputError, match=r"context.*table"):
        Engine(model_of("gpt3"), settings=EngineSettings(context=1000))
