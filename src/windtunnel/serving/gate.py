"""What stands before every request: keys, host names, sizes and times; and the headers of every answer."""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windtunnel.serving.faults import Fault
from windtunnel.serving.served import Limits

OPEN = ("/", "/style.css", "/script.js", "/icon.svg", "/health", "/openapi.json")
CALLS = ("/v1/completions", "/v1/chat/completions")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DISCARDING = 1.0  # seconds
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Keys:
    """API keys. Compared by their hashes, all of them, in a time that does not depend on what was given."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def allow(self, authorization: str) -> bool:
        """Whether a header `Bearer KEY` names one of them."""
        kind, _, key = authorization.partition(" ")
        given = _hash(key.strip())
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        return any(matches) and kind.lower() == "bearer"


class Gate:
    """The outermost part of the application.

    local: the server listens on this machine alone, so without keys another host name in a request is a web page that
    has its own name point here, and is refused.
    """

    def __init__(self, app: ASGIApp, limits: Limits, keys: Keys, local: bool) -> None:
        self.app, self.limits, self.keys, self.local = app, limits, keys, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse to."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _with_headers(send)
        try:
            headers = Headers(scope=scope)
            self._admit(scope["path"], headers)
            if scope["method"] == "POST" and scope["path"] in CALLS:
                _check_type(headers)
            receive = await self._read(headers, receive)
        except Fault as fault:
            await fault.response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _admit(self, path: str, headers: Headers) -> None:
        if self.keys and path not in OPEN and not self.keys.allow(headers.get("authorization", "")):
            message = "an API key is needed: send the header 'Authorization: Bearer KEY'"
            raise Fault(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        name = _host(headers.get("host", ""))
        if self.local and not self.keys and name not in _LOOPBACK:
            raise Fault(403, f"this server answers to localhost, not to {name!r}", "wrong_host")

    async def _read(self, headers: Headers, receive: Receive) -> Receive:
        """The whole body, in size and time."""
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.body:
            await self._discard(receive)
            raise self._too_large()
        body = b""
        try:
            async with asyncio.timeout(self.limits.reading):
                more = True
                while more:
                    message = await receive()
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.limits.body:
                        if more:
                            await self._discard(receive)
                        raise self._too_large()
        except TimeoutError:
            raise Fault(408, f"the body did not arrive within {self.limits.reading:g} seconds", "slow_body") from None
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay

    async def _discard(self, receive: Receive) -> None:
        """Read on for a moment: a client that is still sending would see a broken connection, not the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARDING):
                while (await receive()).get("more_body", False):
                    pass

    def _too_large(self) -> Fault:
        return Fault(
            413, f"the body has more than {self.limits.body} bytes", "too_large", headers={"Connection": "close"}
        )


def _check_type(headers: Headers) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Fault(415, f"Content-Type: expected application/json, got {kind or 'none'!r}", "unsupported_media_type")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sending


def _host(header: str) -> str:
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdecimal() else header).lower()


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="surrogateescape")).digest()
