"""Continuous batching: requests join and leave a running batch, one token a step for each.

The state of all requests is one `ModelState` of buffers. Rows 0 .. d-1 decode together; row d, if there is one, is the
request whose prompt is being read, a chunk a step, so that nobody waits long for a long prompt.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError, WorkError
from windtunnel.inference import states
from windtunnel.inference.request import Chosen, Finish, Piece, Request
from windtunnel.inference.sampling import distribution, draw, uniform
from windtunnel.inference.stream import TextStream
from windtunnel.root import ModelLayer, ModelState
from windtunnel.spec import Spec

_FAR = 1 << 24


class QueueFull(InputError):
    """No room for another request; a moment later there may be."""


class EngineSettings(Spec):
    """How much an engine takes on.

    slots: requests that decode together. context: tokens that a request may hold; None is the model's own, and no limit
    for models whose state does not grow. chunk: tokens of a prompt that are read in one step. queue: requests that may
    wait. at_limit: "stop" there, or "slide": go on from the newer half of the text.
    """

    slots: int = 16
    context: int | None = None
    chunk: int = 256
    queue: int = 256
    at_limit: Literal["stop", "slide"] = "stop"

    def validate(self) -> None:
        for name in ("slots", "chunk", "queue"):
            self.require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        self.require(self.context is None or self.context >= 2, f"context must be at least 2, got {self.context}")


class Row:
    """A request in work: its text so far, and how much of it the state has seen."""

    def __init__(self, number: int, request: Request, tokenizer: Tokenizer | None) -> None:
        self.number, self.request = number, request
        self.text = list(request.prompt)
        self.fed = 0
        self.slid = False
        self.stream = TextStream(tokenizer, request.stop) if tokenizer is not None else None

    @property
    def generated(self) -> int:
        """New tokens so far, whatever slid out."""
        return self._generated

    _generated = 0

    def add(self, token: int) -> None:
        """Append a token of its own."""
        self.text.append(token)
        self._generated += 1


def limit_of(model: ModelLayer) -> int | None:
    """Tokens that a model can hold: None where its state stops growing and no table of positions bounds it."""
    positions = getattr(model.embedding, "positions", None)
    table = getattr(positions, "length", None)
    if table is not None:
        return int(table)
    return None if model.state_bytes(_FAR) == model.state_bytes(2 * _FAR) else int(model.spec.context)


class Engine:
    """Serves requests with one model. Not thread-safe: one thread calls everything.

    `submit` queues a request, `step` moves all of them on and returns what came out, `cancel` ends one.
    """

    def __init__(
        self, model: ModelLayer, tokenizer: Tokenizer | None = None, settings: EngineSettings | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.settings = settings or EngineSettings()
        self.limit = self._limit()
        self.state = model.reserve(self.settings.slots, self.limit or _FAR, self.settings.chunk)
        self._empty = model.reserve(1, self.limit or _FAR, self.settings.chunk)
        self._waiting: deque[Row] = deque()
        self._decoding: list[Row] = []
        self._reading: Row | None = None
        self._numbers = 0

    def _limit(self) -> int | None:
        own, asked = limit_of(self.model), self.settings.context
        table = getattr(getattr(self.model.embedding, "positions", None), "length", None)
        if asked is not None and table is not None and asked > table:
            raise InputError(f"context: {asked} tokens asked of a model whose table of positions has {table}")
        return asked if asked is not None and own is not None else own

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._decoding or self._reading)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._decoding) + (self._reading is not None)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def submit(self, request: Request) -> int:
        """Queue a request; returns its number. Raises `InputError` for what cannot be served, `QueueFull` for now."""
        vocab = self.model.spec.vocab
        bad = next((token for token in request.prompt if not 0 <= token < vocab), None)
        if bad is not None:
            raise InputError(f"prompt: token {bad} is not in the vocabulary of {vocab}")
        if self.limit is not None and len(request.prompt) >= self.limit and self.settings.at_limit == "stop":
            raise InputError(
                f"prompt: {len(request.prompt)} tokens leave no room in a context of {self.limit}; shorten it, "
                "raise the context, or let the text slide"
            )
        if len(self._waiting) >= self.settings.queue:
            raise QueueFull(f"{len(self._waiting)} requests are waiting already; try again in a moment")
        self._numbers += 1
        self._waiting.append(Row(self._numbers, request, self.tokenizer))
        return self._numbers

    def cancel(self, number: int) -> Piece | None:
        """End a request; returns its last piece, None if it is not there any more."""
        for row in [*self._waiting, *self._decoding, *([self._reading] if self._reading else [])]:
            if row.number == number:
                return self._end(row, "cancelled")
        return None

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """Read one chunk of a prompt, and give every decoding request its next token."""
        decoding = list(self._decoding)
        pieces = self._read()
        if decoding:
            logits = self._forward(slice(0, len(decoding)), [[row.text[-1]] for row in decoding], decoding)
            pieces += [piece for k, row in enumerate(decoding) for piece in self._choose(row, logits[k, -1])]
        return pieces

    def _read(self) -> list[Piece]:
        if self._reading is None:
            if not self._waiting or len(self._decoding) == self.settings.slots:
                return []
            self._reading = self._waiting.popleft()
            states.clear(self.state, len(self._decoding), self._empty)
            self._fit(self._reading)
        row = self._reading
        logits = self._feed(row, len(self._decoding), self.settings.chunk)
        if row.fed < len(row.text):
            return []
        self._decoding.append(row)
        self._reading = None
        return self._choose(row, logits)

    def _feed(self, row: Row, place: int, count: int) -> Tensor:
        """Read the next tokens of a row; the logits [v] after the last of them."""
        tokens = row.text[row.fed : row.fed + count]
        return self._forward(slice(place, place + 1), [tokens], [row])[0, -1]

    def _forward(self, chosen: slice, tokens: Sequence[Sequence[int]], group: Sequence[Row]) -> Tensor:
        """Feed these rows; the logits [b 1 v] after the last token of each."""
        first = tuple(row.fed for row in group)
        position = first[0] if len(set(first)) == 1 else first
        state = ModelState(position, states.rows(self.state, chosen))
        ids = torch.tensor(tokens, device=self.model.embedding.weight.device)
        out = self.model(ids, state=state, last=1)
        assert out.state is not None
        states.put(self.state, chosen, out.state.blocks)
        for row in group:
            row.fed += ids.shape[1]
        logits: Tensor = out.logits
        return logits

    def _choose(self, row: Row, logits: Tensor) -> list[Piece]:
        """The row's next token from logits [v], and what that leads to."""
        if self.tokenizer is not None:
            logits = logits[: self.tokenizer.vocab]  # rows of padding are no tokens
        request = row.request
        try:
            seen = row.text if request.sampling.repetition_penalty != 1.0 else ()
            probabilities = distribution(logits[None], request.sampling, seen)[0]
        except WorkError as error:
            return [self._end(row, "error", str(error))]
        token = draw(probabilities, uniform(request.sampling.seed, row.generated))
        return [self._add(row, token, logits)]

    def _add(self, row: Row, token: int, logits: Tensor) -> Piece:
        request = row.request
        logprob, top = _logprobs(logits, token, request.top_logprobs)
        row.add(token)
        ended = self.tokenizer is not None and token == self.tokenizer.end_of_text and not request.ignore_end
        text = row.stream.push(token) if row.stream is not None else ""
        stopped = row.stream is not None and row.stream.stopped is not None
        finish: Finish | None = None
        if ended or stopped:
            finish = "stop"
        elif row.generated == request.tokens:
            finish = "length"
        elif self.limit is not None and len(row.text) > self.limit and self.settings.at_limit == "stop":
            finish = "limit"
        piece = Piece(row.number, token, text, logprob, top, slid=row.slid)
        row.slid = False
        if finish is not None:
            last = self._end(row, finish)
            return piece._replace(text=piece.text + last.text, finish=finish)
        if self.limit is not None and len(row.text) > self.limit:
            self._slide(row)
        return piece

    def _slide(self, row: Row) -> None:
        """Start the row again from the newer half of its text."""
        place = self._decoding.index(row)
        self._fit(row)
        states.clear(self.state, place, self._empty)
        while row.fed < len(row.text) - 1:
            self._feed(row, place, min(self.settings.chunk, len(row.text) - 1 - row.fed))

    def _fit(self, row: Row) -> None:
        """Leave room in the context: a text that fills it keeps its newer half."""
        if self.limit is not None and len(row.text) >= self.limit:
            row.text, row.fed, row.slid = row.text[-(self.limit // 2) :], 0, True

    def _end(self, row: Row, finish: Finish, message: str = "") -> Piece:
        if row in self._decoding:
            self._release(self._decoding.index(row))
        elif row is self._reading:
            self._reading = None
        elif row in self._waiting:
            self._waiting.remove(row)
        text = row.stream.finish() if row.stream is not None else ""
        return Piece(row.number, None, text, finish=finish, message=message)

    def _release(self, place: int) -> None:
        """Fill the hole with the last decoding row, and its place with the one that is being read."""
        last = len(self._decoding) - 1
        if place != last:
            states.move(self.state, last, place)
            self._decoding[place] = self._decoding[last]
        self._decoding.pop()
        if self._reading is not None:
            states.move(self.state, last + 1, last)


def _logprobs(logits: Tensor, token: int, top: int | None) -> tuple[float | None, tuple[Chosen, ...]]:
    if top is None:
        return None, ()
    logprobs: Any = logits.to(torch.float64).log_softmax(-1)
    best = logprobs.topk(min(top, logprobs.shape[-1])) if top else None
    likeliest = () if best is None else tuple(map(Chosen, best.indices.tolist(), best.values.tolist()))
    return float(logprobs[token]), likeliest
