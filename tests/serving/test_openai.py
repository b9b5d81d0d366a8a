"""The official client, as anybody would use it."""

from typing import Any

import openai
import pytest
import torch

from tests.serving.conftest import Live, quiet
from windtunnel.inference.engine import Engine
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling


@pytest.fixture
def client(live: Live) -> Any:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def alone(live: Live, prompt: str, tokens: int, sampling: Sampling, model: str = "llama") -> str:
    """What the engine gives this prompt by itself."""
    run = live.served[model].run
    engine = Engine(run.model, run.tokenizer)
    engine.submit(Request(prompt=(256, *prompt.encode()), sampling=sampling, tokens=tokens))
    text = ""
    while engine.busy:
        text += "".join(piece.text for piece in engine.step())
    return text


def test_models_are_listed(client: Any, live: Live) -> None:
    cards = list(client.models.list())
    assert [card.id for card in cards] == ["llama", "griffin"]
    card = client.models.retrieve("llama")
    assert (card.object, card.context) == ("model", 128)
    assert card.parameters == sum(each.numel() for each in live.served["llama"].run.model.parameters())
    assert card.fingerprint == live.served["llama"].run.spec.fingerprint()[:16]


@pytest.mark.parametrize("model", ["llama", "griffin"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_completion_is_what_the_engine_gives(client: Any, live: Live, model: str, temperature: float) -> None:
    found = client.completions.create(model=model, prompt="lift", max_tokens=12, temperature=temperature, seed=5)
    assert found.choices[0].text == alone(live, "lift", 12, Sampling(temperature=temperature, seed=5), model)
    assert found.model == model
    assert found.usage.prompt_tokens == 5  # the end of text that begins a document, and four bytes
    assert found.usage.completion_tokens == 12
    assert found.choices[0].finish_reason == "length"


def test_a_stream_adds_up_to_the_whole(client: Any) -> None:
    asked: dict[str, Any] = {"model": "llama", "prompt": "drag", "max_tokens": 40, "seed": 9, "n": 3}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    texts = ["", "", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]
    assert len(set(texts)) == 3
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == len(chunks) - 1
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_first_choice_is_the_same_however_many_there_are(client: Any) -> None:
    asked: dict[str, Any] = {"model": "llama", "prompt": "drag", "max_tokens": 10, "seed": 9}
    texts = [client.completions.create(**asked, n=n).choices[0].text for n in (1, 4)]
    assert texts[0] == texts[1]


def test_many_prompts_and_token_ids(client: Any) -> None:
    greedy: dict[str, Any] = {"model": "llama", "max_tokens": 6, "temperature": 0}
    both = client.completions.create(prompt=["lift", "thrust"], **greedy).choices
    single = [client.completions.create(prompt=prompt, **greedy).choices[0].text for prompt in ("lift", "thrust")]
    assert [choice.text for choice in both] == single
    ids = [[256, *prompt.encode()] for prompt in ("lift", "thrust")]
    assert [choice.text for choice in client.completions.create(prompt=ids, **greedy).choices] == single
    assert client.completions.create(prompt=ids[0], **greedy).choices[0].text == single[0]


def test_logprobs_are_the_models_own(client: Any, live: Live) -> None:
    found = client.completions.create(model="llama", prompt="lift", max_tokens=5, seed=1, logprobs=3).choices[0]
    rows = found.logprobs
    assert "".join(rows.tokens).startswith(found.text[:1]) or rows.tokens[0].startswith("bytes:")
    model = live.served["llama"].run.model
    with torch.no_grad():
        logits = model(torch.tensor([[256, *b"lift"]])).logits[0, -1, :257].double()
    expected = logits.log_softmax(-1)
    best = expected.topk(3)
    assert rows.top_logprobs[0] == pytest.approx(
        {live.served["llama"].written(int(i)): float(v) for i, v in zip(best.indices, best.values, strict=True)},
        abs=1e-5,
    )
    assert len(rows.tokens) == len(rows.token_logprobs) == len(rows.text_offset) == 5
    assert rows.text_offset == sorted(rows.text_offset)


def test_chat(client: Any, live: Live) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    asked: dict[str, Any] = {"model": "llama", "messages": messages, "max_completion_tokens": 12, "temperature": 0}
    found = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    text = alone(live, "Be brief.\n\nUser: hi\n\nAssistant:", 12, Sampling(temperature=0))
    assert found.choices[0].message.content == text.removeprefix(" ")
    assert found.choices[0].message.role == "assistant"
    assert found.template == "plain"
    content = found.choices[0].logprobs.content
    assert len(content) == found.usage.completion_tokens == 12
    assert [len(each.top_logprobs) for each in content] == [2] * 12
    assert all(each.logprob == each.top_logprobs[0].logprob for each in content)  # greedy
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == found.choices[0].message.content
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_stop_strings_end_a_text(client: Any) -> None:
    asked: dict[str, Any] = {"model": "llama", "prompt": "lift", "max_tokens": 60, "seed": 4}
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[20:22]
    found = client.completions.create(**asked, stop=[stop, "never there at all"]).choices[0]
    assert found.text == whole[: whole.index(stop)]
    assert found.finish_reason == "stop"


def test_the_extra_settings_count(client: Any, live: Live) -> None:
    asked: dict[str, Any] = {"model": "llama", "prompt": "lift", "max_tokens": 30, "seed": 4}
    greedy = client.completions.create(**asked, temperature=0).choices[0].text
    assert client.completions.create(**asked, extra_body={"top_k": 1}).choices[0].text == greedy
    assert client.completions.create(**asked, extra_body={"min_p": 1.0}).choices[0].text == greedy
    settings = {"repetition_penalty": 1.5, "top_k": 20, "min_p": 0.001}
    found = client.completions.create(**asked, top_p=0.9, extra_body=settings).choices[0].text
    assert found == alone(live, "lift", 30, Sampling(seed=4, top_p=0.9, **settings))


def test_a_full_context_ends_a_text(client: Any) -> None:
    found = client.completions.create(model="llama", prompt="x" * 100, max_tokens=100, seed=1)
    assert found.choices[0].finish_reason == "length"
    assert found.usage.total_tokens == 129  # the last token need not be read


def test_errors_are_the_clients_own_kinds(client: Any, live: Live) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no 'gpt-4'; served are: llama, griffin"):
        client.completions.create(model="gpt-4", prompt="x")
    with pytest.raises(openai.BadRequestError, match=r"128 tokens leave|leave no room") as caught:
        client.completions.create(model="llama", prompt="x" * 200)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError, match="temperature 0 takes the likeliest token; top_k"):
        client.completions.create(model="llama", prompt="x", temperature=0, extra_body={"top_k": 3})
    with pytest.raises(openai.BadRequestError, match="top_logprobs needs logprobs"):
        client.chat.completions.create(model="llama", messages=[{"role": "user", "content": "x"}], top_logprobs=3)
    quiet(live)
