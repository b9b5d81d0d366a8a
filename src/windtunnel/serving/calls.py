"""One call from its arrival to its end: gathered or streamed, within its time, for a client that is still there."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from windtunnel.inference.request import Piece, Request
from windtunnel.serving.answers import Answer, Text, usage
from windtunnel.serving.faults import Fault, fault_of
from windtunnel.serving.metrics import Metrics
from windtunnel.serving.served import Limits, Served
from windtunnel.serving.wire import Settings, StreamOptions
from windtunnel.serving.worker import Job, Stopped

_CLIENT_LEFT = 499  # as nginx writes it into its log; nobody reads the answer
_DRAINING = 5.0  # seconds after its time for a stream's last event to be taken


class Call:
    """A request that was understood, and how its answers are written. prompts: how many, each with its choices."""

    def __init__(
        self,
        served: Served,
        requests: Sequence[Request],
        prompts: int,
        answer: Answer,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.served, self.prompts, self.answer, self.limits, self.metrics = served, prompts, answer, limits, metrics
        self.texts = [Text(request, served.worker.engine.limit) for request in requests]
        self.began = time.monotonic()
        self.deadline = asyncio.get_running_loop().time() + limits.seconds
        self._job: Job | None = None
        self._ended = False

    async def respond(self, http: HttpRequest, body: Settings) -> Response:
        """The HTTP answer. What goes wrong before it begins is raised as a `Fault`."""
        try:
            if body.stream:
                await self._submit()
                return _Events(self, self._events(body.stream_options or StreamOptions()))
            if not await _while_there(http, self._gather()):
                self.end("cancelled")
                return Response(status_code=_CLIENT_LEFT)
            self.end("ok")
            whole = self.answer.whole(self.texts, usage(self.texts, self.prompts))
            return JSONResponse(whole.model_dump(exclude_unset=True))
        except Exception as error:
            fault = fault_of(error)
            self.end(fault.code)
            raise fault from error
        except asyncio.CancelledError as error:
            raise self.cut_off() from error
        finally:
            if not body.stream:
                self.end("cancelled")

    def end(self, outcome: str) -> None:
        """Free what the call holds and count it; only the first time does anything."""
        if self._ended:
            return
        self._ended = True
        name = self.served.name
        if self._job is not None:
            self.served.worker.close(self._job)
            self.metrics.tokens(
                name, sum(len(text.request.prompt) for text in self.texts), sum(text.tokens for text in self.texts)
            )
        self.metrics.request(name, self.answer.endpoint, outcome, time.monotonic() - self.began)

    def cut_off(self) -> Fault:
        """End what the server waits for no longer: nothing else cancels a call. What to tell the client."""
        fault = fault_of(Stopped(f"{self.served.name}: the server is stopping"))
        self.end(fault.code)
        return fault

    async def _submit(self) -> Job:
        if self._job is None:
            self._job = await self.served.worker.submit([text.request for text in self.texts])
        return self._job

    async def _gather(self) -> None:
        async for pieces in self._pieces():
            for index, piece in pieces:
                self.texts[index].add(piece)

    async def _pieces(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """Choices with the pieces that came, for the texts to take, until all have ended. Raises `Fault`."""
        job, first = await self._submit(), True
        while not all(text.ended for text in self.texts):
            try:
                async with asyncio.timeout_at(self.deadline):
                    pieces = await job.next()
            except TimeoutError:
                message = f"the request took more than {self.limits.seconds:g} seconds; ask for fewer tokens"
                raise Fault(504, message, "timeout", headers={"x-should-retry": "false"}) from None
            if first:
                self.metrics.first_token(self.served.name, time.monotonic() - self.began)
                first = False
            failed = [piece.message for _, piece in pieces if piece.finish == "error"]
            yield [each for each in pieces if each[1].finish != "error"]
            if failed:
                raise Fault(500, failed[0], "engine_error")

    async def _events(self, options: StreamOptions) -> AsyncIterator[str]:
        try:
            async for pieces in self._pieces():
                written = [self._written(index, piece, options) for index, piece in pieces]
                yield "".join(written)  # one write for all that waited
            if options.include_usage:
                yield _event(self.answer.last(usage(self.texts, self.prompts)).model_dump_json(exclude_unset=True))
        except Exception as error:
            fault = fault_of(error)
            self.end(fault.code)
            yield _told(fault)
            return
        self.end("ok")
        yield _event("[DONE]")

    def _written(self, index: int, piece: Piece, options: StreamOptions) -> str:
        text = self.texts[index]
        chunk = self.answer.chunk(index, text, piece, text.add(piece))
        if options.include_state:
            chunk.state_bytes = self.served.worker.engine.batch.state_bytes(text.held)
        return _event(chunk.model_dump_json(exclude_unset=True))


class _Events(StreamingResponse):
    """A stream that ends its call however it ends itself: before its first event, or as its client stops reading."""

    def __init__(self, call: Call, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._call.deadline + _DRAINING):
                    await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            last = _told(self._call.cut_off()).encode()
            await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            self._call.end("cancelled")


async def _while_there(http: HttpRequest, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, unless the client leaves first: then it is cancelled, and the answer is False."""
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
        return doing.done()
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _told(fault: Fault) -> str:
    return _event(json.dumps(fault.body, ensure_ascii=False, separators=(",", ":")))


def _event(data: str) -> str:
    return f"data: {data}\n\n"
