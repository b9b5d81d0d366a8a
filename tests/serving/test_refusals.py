"""What cannot be served is refused in one clear answer, in OpenAI's shape, and leaves nothing behind."""

import json
import socket
import time
from typing import Any

import pytest

from tests.serving.conftest import Live, endless, quiet, serving
from windtunnel.inference.engine import EngineSettings
from windtunnel.serving.gate import Keys
from windtunnel.serving.served import Limits

GOOD: dict[str, Any] = {"model": "llama", "prompt": "lift", "max_tokens": 2}
CHAT: dict[str, Any] = {"model": "llama", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}


@pytest.mark.parametrize(
    ("changes", "status", "param", "words"),
    [
        ({"prompt": None}, 400, "prompt", ""),
        ({"prompt": []}, 400, "prompt", "at least 1 item"),
        ({"prompt": [257]}, 400, "prompt", "token 257 is not in the vocabulary of 257"),
        ({"prompt": [-1]}, 400, "prompt", "greater than or equal to 0"),
        ({"prompt": "\ud800"}, 400, "prompt", ""),
        ({"prompt": "x" * 126}, 200, None, ""),
        ({"prompt": "x" * 127}, 400, "prompt", "leave no room in a context of 128"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 2001}, 400, "max_tokens", "at most 2000"),
        ({"max_tokens": "2"}, 400, "max_tokens", "valid integer"),
        ({"max_tokens": 2.5}, 400, "max_tokens", "valid integer"),
        ({"temperature": -0.1}, 400, "temperature", "greater than or equal to 0"),
        ({"temperature": 0, "top_p": 0.5}, 400, None, "temperature 0 takes the likeliest"),
        ({"temperature": 0, "top_p": 1}, 200, None, ""),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"top_k": 0}, 400, "top_k", ""),
        ({"min_p": 1.5}, 400, "min_p", ""),
        ({"repetition_penalty": 0}, 400, "repetition_penalty", ""),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty", ""),
        ({"frequency_penalty": 0, "presence_penalty": 0.0, "user": "me", "best_of": 1}, 200, None, ""),
        ({"logit_bias": {"5": 1.0}}, 400, "logit_bias", ""),
        ({"echo": True}, 400, "echo", ""),
        ({"n": 65}, 400, "n", ""),
        ({"stop": ""}, 400, "stop", ""),
        ({"stop": ["a", ""]}, 400, "stop", ""),
        ({"logprobs": 21}, 400, "logprobs", ""),
        ({"model": "palm"}, 404, "model", "served are: llama, griffin"),
        ({"tools": []}, 400, "tools", "extra inputs"),
        ({"seed": 1 << 64}, 400, "seed", ""),
        ({"stream": 1}, 400, "stream", "boolean"),
    ],
    ids=str,
)
def test_a_field_out_of_range(live: Live, changes: dict[str, Any], status: int, param: str | None, words: str) -> None:
    body = json.dumps({**GOOD, **changes})
    response = live.client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    if status != 200:
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert (error["param"] or "").split(".")[0] == (param or "")
        assert words in error["message"]
        assert "Traceback" not in error["message"]
    quiet(live)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": []}, "at least 1 item"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "'system', 'developer', 'user' or 'assistant'"),
        ({"messages": [{"role": "user"}]}, "required"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, ""),
        ({"max_completion_tokens": 3}, "max_tokens and max_completion_tokens differ"),
        ({"messages": [{"role": "user", "content": "x" * 200}]}, "leave no room"),
    ],
    ids=str,
)
def test_a_conversation_that_cannot_be(live: Live, changes: dict[str, Any], words: str) -> None:
    response = live.client.post("/v1/chat/completions", json={**CHAT, **changes})
    assert response.status_code == 400, response.text
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, None),
        (b"[]", "application/json", 400, None),
        (b"\xff\xfe", "application/json", 400, None),
        (b"[" * 9000, "application/json", 400, None),
        (b'{"model": "llama", "prompt": "x", "temperature": NaN}', "application/json", 400, None),
        (b'{"model": "llama", "prompt": "x", "temperature": 1e999}', "application/json", 400, None),
        (b'{"model": "llama", "prompt": "x", "seed": ' + b"9" * 5000 + b"}", "application/json", 400, None),
        (json.dumps(GOOD).encode(), "text/plain", 415, "unsupported_media_type"),
        (json.dumps(GOOD).encode(), "", 415, "unsupported_media_type"),
        (json.dumps(GOOD).encode(), "application/json; charset=utf-8", 200, None),
        (b"x" * 20_001, "application/json", 413, "too_large"),
    ],
)
def test_bodies_that_are_no_request(live: Live, content: bytes, kind: str, status: int, code: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = live.client.post("/v1/completions", content=content, headers=headers)
    assert response.status_code == status, response.text
    if status != 200:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert code is None or error["code"] == code


def test_a_body_of_unknown_length_is_cut_off(live: Live) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b" " * 1000

    response = live.client.post("/v1/completions", content=endless(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413


def test_paths_and_methods(live: Live) -> None:
    assert live.client.get("/v1/nothing").json()["error"]["code"] == "not_found"
    response = live.client.get("/v1/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_another_host_name_is_refused(live: Live) -> None:
    """A web page whose own name points at this machine cannot use the server."""
    response = live.client.get("/v1/models", headers={"Host": "evil.example"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "wrong_host")
    assert live.client.get("/v1/models", headers={"Host": "localhost:1"}).status_code == 200


def test_a_full_queue_says_when_to_come_again() -> None:
    with serving(settings=EngineSettings(slots=1, queue=2), context=100_000, change=endless) as live:
        with live.client.stream("POST", "/v1/completions", json={**GOOD, "max_tokens": 4000, "stream": True}) as first:
            lines = first.iter_lines()  # kept: an iterator that is dropped closes its connection
            next(lines)
            response = live.post("/v1/completions", prompt="x", n=3)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["type"] == "rate_limit_error"
            assert live.served["llama"].worker.engine.waiting == 0  # all or none of a request's choices
        quiet(live)
        assert live.complete(n=2)["choices"][1]["finish_reason"] == "length"


def test_a_request_has_its_time() -> None:
    with serving(limits=Limits(seconds=0.5, tokens=50_000), context=100_000, change=endless) as live:
        body: dict[str, Any] = {**GOOD, "max_tokens": 50_000}
        response = live.post("/v1/completions", **body)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        quiet(live)
        events = live.post("/v1/completions", **body, stream=True).text.strip().split("\n\n")
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        assert len(events) > 1
        quiet(live)


def test_a_body_has_its_time_too() -> None:
    with serving(limits=Limits(reading=0.2)) as live:
        port = int(live.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_keys() -> None:
    with serving(keys=("first-key", "second-key")) as live:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic first-key"}):
            for path in ("/v1/models", "/metrics"):
                response = live.client.get(path, headers=headers)
                assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
                assert response.headers["www-authenticate"] == "Bearer"
        for key in ("first-key", "second-key"):
            assert live.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        for path in ("/health", "/", "/openapi.json"):
            assert live.client.get(path).status_code == 200
        assert live.client.post("/v1/completions", json=GOOD).status_code == 401


def test_every_key_is_compared_whatever_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def counted(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return left == right

    monkeypatch.setattr("windtunnel.serving.gate.hmac.compare_digest", counted)
    keys = Keys(["a", "b", "c"])
    assert keys.allow("Bearer a")
    assert not keys.allow("Bearer d")
    assert len(compared) == 6
    assert {len(each) for each in compared} == {32}


def test_a_client_that_leaves_frees_its_row() -> None:
    with serving(limits=Limits(tokens=90_000), context=100_000, change=endless) as live:
        long = {**GOOD, "max_tokens": 90_000, "n": 2}
        with live.client.stream("POST", "/v1/completions", json={**long, "stream": True}) as response:
            lines = response.iter_lines()  # kept: an iterator that is dropped closes its connection
            next(lines)
            assert live.served["llama"].worker.engine.running >= 1
        quiet(live)
        port = int(live.url.rpartition(":")[2])
        body = json.dumps(long)
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
            leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            until = time.monotonic() + 20
            while live.served["llama"].worker.engine.running < 2:
                assert time.monotonic() < until
                time.sleep(0.01)
        quiet(live)
        assert 'outcome="cancelled"} 2' in live.client.get("/metrics").text
        assert live.complete()["usage"]["completion_tokens"] == 8
