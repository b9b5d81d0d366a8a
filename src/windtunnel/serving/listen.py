"""The server itself: a socket, uvicorn, and an end in good order."""

import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from windtunnel.errors import InputError

_BACKLOG = 512
_IDLE = 30  # seconds for which a connection may ask nothing


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `InputError` where it cannot be had."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port: expected 0 to 65535, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror or error}") from error


def address(listening: socket.socket) -> str:
    """Where the page is."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def configured(app: FastAPI, grace: float) -> uvicorn.Config:
    """How uvicorn serves an application here. Texts are not logged."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=max(1, round(grace)),
        lifespan="on",
        ws="none",
    )


def serve(app: FastAPI, listening: socket.socket, grace: float, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until SIGTERM or SIGINT. Then nobody new is let in, and what runs has `grace` seconds to end.

    A second Ctrl-C ends it at once. Call from the main thread.
    """
    server = _Announced(configured(app, grace), ready)
    # uvicorn raises the signals again when it is done; the process goes on to its own end instead.
    held = {number: signal.signal(number, _nothing) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        listening.close()


class _Announced(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def _nothing(number: int, frame: Any) -> None:
    """The signal has done its work."""
