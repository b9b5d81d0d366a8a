"""What is asked of an engine, and what comes out of it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from windtunnel.errors import InputError
from windtunnel.inference.sampling import Sampling

Finish = Literal["stop", "length", "limit", "cancelled", "error"]


_PLAIN = Sampling()


@dataclass(frozen=True, kw_only=True)
class Request:
    """A text to go on with.

    prompt: token ids, at least one. tokens: at most so many new ones. stop: texts that end it (with a tokenizer).
    top_logprobs: log-probabilities of so many likeliest tokens beside the chosen one's; None gives none.
    ignore_end: go on after an end of text, for measurements.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = _PLAIN
    tokens: int = 128
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    ignore_end: bool = False

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError("prompt: has no token; give at least one (an end of text begins a document)")
        if self.tokens < 1:
            raise InputError(f"tokens: at least 1 new token must be asked for, got {self.tokens}")
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= 20:
            raise InputError(f"top_logprobs: expected 0 to 20, got {self.top_logprobs}")
        if any(not stop for stop in self.stop):
            raise InputError("stop: an empty string would stop everywhere; leave it out")


class Chosen(NamedTuple):
    """A log-probability in nats under the model itself, before any sampling settings."""

    token: int
    logprob: float


class Piece(NamedTuple):
    """What one token adds. `token` is None in the last piece of a request that ends without one (cancelled, error).

    text: characters that are complete now. finish: set in the last piece: "stop" (an end of text or a stop string),
    "length" (as many tokens as were asked for), "limit" (the model's context is full), "cancelled", or "error".
    slid: the oldest tokens were forgotten before this one, because the context was full.
    """

    request: int
    token: int | None
    text: str = ""
    logprob: float | None = None
    top: tuple[Chosen, ...] = ()
    finish: Finish | None = None
    message: str = ""
    slid: bool = False
