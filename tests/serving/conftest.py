"""Two tiny runs with the tokenizer of bytes, served by a real uvicorn on a free port."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

import windtunnel as wt
from windtunnel.data.tokenizers import ByteTokenizer
from windtunnel.inference.engine import EngineSettings
from windtunnel.runs import Run
from windtunnel.serving.app import application
from windtunnel.serving.listen import address, configured, open_socket
from windtunnel.serving.served import Limits, Served, serve_run

SMALL = {"layers": 2, "width": 16, "heads": 2, "vocab": 257}


def run_of(recipe: str, context: int = 128) -> Run:
    """A run as `load` gives it, untrained."""
    model = wt.build(getattr(wt.recipes, recipe)(**SMALL, context=context), seed=3).eval()
    return Run(model, ByteTokenizer(), model.spec, {"checkpoint": "none"})


@dataclass
class Live:
    """A server that answers, and what is behind it."""

    url: str
    served: dict[str, Served]
    client: httpx.Client

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Ask with a JSON body; the model is llama unless said."""
        return self.client.post(path, json={"model": "llama", **body})

    def complete(self, **body: Any) -> Any:
        """A completion that must succeed."""
        response = self.post("/v1/completions", **{"prompt": "lift", "max_tokens": 8, **body})
        assert response.status_code == 200, response.text
        return response.json()


def quiet(live: Live, within: float = 20.0) -> None:
    """Wait until no engine has anything to do."""
    until = time.monotonic() + within
    while any(each.worker.engine.busy or each.worker.jobs for each in live.served.values()):
        assert time.monotonic() < until, "an engine is still busy"
        time.sleep(0.01)


def endless(served: Served) -> None:
    """The end of text is not among the tokens that can be drawn: only a limit ends a text."""
    served.worker.engine.vocab = 256


@contextlib.contextmanager
def serving(
    recipes: tuple[str, ...] = ("llama",),
    settings: EngineSettings | None = None,
    limits: Limits | None = None,
    keys: tuple[str, ...] = (),
    context: int = 128,
    change: Callable[[Served], None] = lambda served: None,
) -> Iterator[Live]:
    served = [serve_run(name, run_of(name, context), settings, threads=1) for name in recipes]
    for each in served:
        change(each)
    listening = open_socket("127.0.0.1", 0)
    app = application(served, limits, keys, local=True)
    server = uvicorn.Server(configured(app, grace=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    url = address(listening)
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Live(url, {each.name: each for each in served}, client)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
        assert not any(each.worker.alive for each in served)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """llama, whose state grows, and griffin, whose state does not."""
    with serving(("llama", "griffin"), limits=Limits(tokens=2000, body=20_000)) as made:
        yield made
