"""The application: its paths, what they answer, and the description of them at /openapi.json."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from windtunnel.errors import InputError
from windtunnel.serving import wire
from windtunnel.serving.answers import ChatAnswer, CompletionAnswer
from windtunnel.serving.calls import Call
from windtunnel.serving.faults import Fault, answer_fault
from windtunnel.serving.gate import Gate, Keys
from windtunnel.serving.metrics import MEDIA_TYPE, Metrics
from windtunnel.serving.served import Limits, Served, chat_requests, completion_requests
from windtunnel.version import VERSION

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/script.js": ("script.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_REASONS = {
    400: "What was asked cannot be",
    401: "No API key, or a wrong one",
    403: "Asked under another host name",
    404: "No such model",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "Too many requests wait; Retry-After says when to try again",
    500: "The server failed",
    503: "The server is stopping",
    504: "The request took too long",
}
_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.ErrorBody, "description": reason} for status, reason in _REASONS.items()
}
_EVENTS: dict[str, dict[str, Any]] = {
    "text/event-stream": {}
}  # each event holds a chunk as JSON; OpenAPI 3.1 cannot say so


class Server:
    """Served runs by name, with what every call of them needs."""

    def __init__(self, served: Sequence[Served], limits: Limits) -> None:
        self.served = {each.name: each for each in served}
        if len(self.served) < len(served):
            raise InputError("two runs have one name; give them others by NAME=FOLDER")
        self.limits, self.metrics = limits, Metrics(served)

    def find(self, name: str) -> Served:
        """A run by its name."""
        if name not in self.served:
            message = f"model: there is no {name!r}; served are: {', '.join(self.served)}"
            raise Fault(404, message, "model_not_found", "model")
        return self.served[name]

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """The engines' threads run while the application does."""
        for each in self.served.values():
            each.worker.start()
        yield
        for each in self.served.values():
            await each.worker.stop()


def application(
    served: Sequence[Served], limits: Limits | None = None, keys: Iterable[str] = (), local: bool = False
) -> FastAPI:
    """The ASGI application. keys: those that are let in; none lets everybody in. local: see `Gate`."""
    server = Server(served, limits or Limits())
    app = FastAPI(
        title="windtunnel serve",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=server.lifespan,
        responses={status: _FAULTS[status] for status in (401, 403)},
    )
    for kind in (Fault, InputError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer_fault)
    app.add_middleware(Gate, limits=server.limits, keys=Keys(keys), local=local)
    _add_calls(app, server)
    _add_readings(app, server)
    for path in _PAGE:
        app.add_api_route(path, _page_file, include_in_schema=False)
    described = app.openapi
    app.openapi = lambda: _corrected(described(), list(server.served))  # type: ignore[method-assign]
    return app


def _add_calls(app: FastAPI, server: Server) -> None:
    @app.post("/v1/completions", responses=_FAULTS | {200: {"model": wire.Completion, "content": _EVENTS}})
    async def completions(http: Request, body: wire.CompletionRequest) -> Response:
        """Go on from one or many prompts."""
        served = server.find(body.model)
        requests = completion_requests(body, served, server.limits)
        answer = CompletionAnswer(served)
        call = Call(served, requests, len(body.prompts), answer, server.limits, server.metrics)
        return await call.respond(http, body)

    @app.post("/v1/chat/completions", responses=_FAULTS | {200: {"model": wire.Chat, "content": _EVENTS}})
    async def chat(http: Request, body: wire.ChatRequest) -> Response:
        """Go on with a conversation, which is written out by a plain template: these are base models."""
        served = server.find(body.model)
        requests = chat_requests(body, served, server.limits)
        return await Call(served, requests, 1, ChatAnswer(served), server.limits, server.metrics).respond(http, body)


def _add_readings(app: FastAPI, server: Server) -> None:
    @app.get("/v1/models")
    async def models() -> wire.Cards:
        """The served runs."""
        return wire.Cards(data=[_card(each, server.limits) for each in server.served.values()])

    @app.get("/v1/models/{name}", responses={404: _FAULTS[404]})
    async def model(name: str) -> wire.Card:
        """One served run."""
        return _card(server.find(name), server.limits)

    @app.get("/health", responses={503: {"model": wire.Health, "description": "Not every engine takes requests"}})
    async def health() -> Response:
        """Whether requests are taken."""
        alive = {name: each.worker.alive for name, each in server.served.items()}
        words = {True: "ok", False: "stopping"}
        body = {"status": words[all(alive.values())], "models": {name: words[each] for name, each in alive.items()}}
        return JSONResponse(body, 200 if all(alive.values()) else 503)

    @app.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def metrics() -> Response:
        """Counters, gauges and histograms for Prometheus."""
        return Response(server.metrics.text(), media_type=MEDIA_TYPE)


def _card(served: Served, limits: Limits) -> wire.Card:
    return wire.Card(
        id=served.name,
        created=served.created,
        fingerprint=served.fingerprint,
        parameters=served.parameters,
        context=served.worker.engine.limit,
        max_tokens=limits.tokens,
        tokenizer=served.tokenizer.label,
    )


async def _page_file(http: Request) -> Response:
    name, kind = _PAGE[http.url.path]
    return Response(files("windtunnel.serving").joinpath("page", name).read_bytes(), media_type=kind)


def _corrected(document: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What is answered here: no 422 but 400, and the names of the models."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name in ("CompletionRequest", "ChatRequest"):
        schemas[name]["properties"]["model"]["enum"] = names
    return document
