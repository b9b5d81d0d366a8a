"""What fails in the middle fails alone: damaged weights, clients that stop reading, a stop that takes too long."""

import asyncio
import json
from typing import Any

import pytest
import torch

from tests.serving.conftest import endless, quiet, run_of, serving
from windtunnel.inference.engine import EngineSettings
from windtunnel.serving import calls
from windtunnel.serving.app import application
from windtunnel.serving.served import Limits, Served, serve_run


def damaged(served: Served) -> None:
    """The letter z has no number among its embedding: a text that holds one has no logits."""
    with torch.no_grad():
        served.run.model.embedding.weight[ord("z")] = torch.nan
    endless(served)


def test_logits_that_are_no_numbers_end_their_own_request() -> None:
    with serving(change=damaged, settings=EngineSettings(slots=3), context=2000) as live:
        other = {"model": "llama", "prompt": "lift", "max_tokens": 400, "stop": ["z"], "stream": True}
        with live.client.stream("POST", "/v1/completions", json=other) as beside:
            lines = beside.iter_lines()
            next(lines)
            for path, prompt in (
                ("/v1/completions", {"prompt": "zz"}),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "z"}]}),
            ):
                whole = live.post(path, **prompt, max_tokens=3)
                assert whole.status_code == 500
                assert "logits that are not numbers" in whole.json()["error"]["message"]
                events = live.post(path, **prompt, max_tokens=3, stream=True).text.strip().split("\n\n")
                assert json.loads(events[-1].removeprefix("data: "))["error"] == whole.json()["error"]
            assert "data: [DONE]" in list(lines)
        quiet(live)
        assert 'windtunnel_engine_failures_total{model="llama"} 0' in live.client.get("/metrics").text


def test_a_client_that_stops_reading_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request ends, and its row is free, though no write to it ever does."""
    monkeypatch.setattr(calls, "_DRAINING", 0.1)
    served = serve_run("llama", run_of("llama", context=100_000), threads=1)
    endless(served)
    app = application([served], Limits(seconds=0.3, tokens=50_000))
    body = json.dumps({"model": "llama", "prompt": "x", "max_tokens": 50_000, "stream": True}).encode()
    arrived = [{"type": "http.request", "body": body, "more_body": False}]
    written: list[Any] = []

    async def receive() -> Any:
        return arrived.pop() if arrived else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        written.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def ask() -> None:
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "POST", "path": "/v1/completions"}
        scope |= {"headers": headers, "query_string": b"", "raw_path": b"/v1/completions", "root_path": ""}
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(app(scope, receive, send), 30)
            until = asyncio.get_running_loop().time() + 20
            while served.worker.engine.busy or served.worker.jobs:
                assert asyncio.get_running_loop().time() < until, "the engine is still busy"
                await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert [message["type"] for message in written] == ["http.response.start", "http.response.body"]
