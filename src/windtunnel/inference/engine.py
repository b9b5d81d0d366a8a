"""Continuous batching: requests join and leave a running batch, one token a step for each.

The state of all requests is one `Batch`. Rows 0 .. d-1 decode together; row d, if there is one, is the request whose
prompt is being read. A step reads one chunk of tokens, of one prompt or of several, so that nobody waits long for
them. With a drafter a decoding row moves on by several tokens a step (Leviathan et al. 2023), which have exactly the
distribution that they would have singly.
"""

from collections import deque
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError, WorkError
from windtunnel.inference.acceptance import Accepted, accept, accept_greedy
from windtunnel.inference.batch import FAR, Batch, limit_of
from windtunnel.inference.compiled import Say
from windtunnel.inference.drafts import NOTHING, Draft, Drafter, ModelDrafter, PromptLookup, Wanted
from windtunnel.inference.pace import VERIFYING, Pace, best_length, tried
from windtunnel.inference.request import Chosen, Finish, Piece, Request
from windtunnel.inference.sampling import Turn, choose, distribution, likeliest, not_numbers, uniform
from windtunnel.inference.stream import TextStream
from windtunnel.root import ModelLayer
from windtunnel.spec import Spec

_FORGETTING = 0.9
CacheType = Literal["float32", "bfloat16", "float16"]
CACHES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class QueueFull(InputError):
    """No room for another request; a moment later there may be."""


class EngineSettings(Spec):
    """How much an engine takes on.

    slots: requests that decode together. context: tokens that a request may hold; None is the model's own, and no limit
    for models whose state does not grow. chunk: tokens of prompts that are read in one step. queue: requests that may
    wait. at_limit: "stop" there, or "slide": go on from the newer half of the text. draft_tokens: the longest draft.
    cache_dtype: how keys, values and inputs of convolutions are kept between calls, None for the model's own type;
    recurrences keep float32 at least, and everything is computed in the model's type. compiled: decode single tokens
    by a compiled step (`inference.compiled`): the same function, several times as fast; compiling takes a minute or so,
    once for a spec and machine.
    """

    slots: int = 16
    context: int | None = None
    chunk: int = 256
    queue: int = 256
    at_limit: Literal["stop", "slide"] = "stop"
    draft_tokens: int = 8
    cache_dtype: CacheType | None = None
    compiled: bool = False

    def validate(self) -> None:
        for name in ("slots", "chunk", "queue", "draft_tokens"):
            self.require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        self.require(self.context is None or self.context >= 2, f"context must be at least 2, got {self.context}")

    @property
    def cache(self) -> torch.dtype | None:
        """`cache_dtype` as a type of torch."""
        return None if self.cache_dtype is None else CACHES[self.cache_dtype]


class Row:
    """A request in work: its text so far, and how much of it the state has seen."""

    def __init__(self, number: int, request: Request, tokenizer: Tokenizer | None) -> None:
        self.number, self.request = number, request
        self.text = list(request.prompt)
        self.slid = False
        self.rate = 0.7
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

    def judged(self, drafted: int, kept: int) -> None:
        """Learn how often its drafts are kept: a running mean of verdicts, of which rejections end a draft."""
        if drafted:
            verdicts = min(kept + 1, drafted)
            weight = _FORGETTING**verdicts
            self.rate = weight * self.rate + (1 - weight) * kept / verdicts


class Engine:
    """Serves requests with one model. Not thread-safe: one thread calls everything.

    say: told of a compilation that begins and why one cannot be; without it only the latter, as a warning.
    `submit` queues a request, `step` moves all of them on and returns what came out, `cancel` ends one.
    """

    def __init__(
        self,
        model: ModelLayer,
        tokenizer: Tokenizer | None = None,
        settings: EngineSettings | None = None,
        draft: ModelLayer | Literal["lookup"] | None = None,
        say: Say | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._stops = tokenizer.stops if tokenizer is not None else frozenset()
        self.settings = settings or EngineSettings()
        self.limit = self._limit()
        self._known = model.spec.vocab if tokenizer is None else tokenizer.vocab  # rows of padding are no tokens
        self.vocab = self._known  # what may be drawn
        slots, capacity, chunk = self.settings.slots, self.limit or FAR, self.settings.chunk
        compiled, cache = self.settings.compiled, self.settings.cache
        self.batch = Batch(model, slots, capacity, chunk, compiled, say, cache)
        self.drafter: Drafter | None = None
        if draft == "lookup":
            self.drafter = PromptLookup(self.vocab)
        elif draft is not None:
            longest = self.settings.draft_tokens
            self.drafter = ModelDrafter(draft, model, slots, capacity, chunk, longest, self.vocab, compiled, say, cache)
        self.pace = None if self.drafter is None else Pace()
        self._drafting = False
        self.drafted = self.kept = 0
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
        bad = next((token for token in request.prompt if not 0 <= token < self._known), None)
        if bad is not None:
            raise InputError(f"prompt: token {bad} is not in the vocabulary of {self._known}")
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
        """Read one chunk of prompts, and give every decoding request its next tokens."""
        decoding = list(self._decoding)
        pieces = self._read()
        if decoding:
            pieces += self._decode(decoding)
        return pieces

    def _read(self) -> list[Piece]:
        """Prompts of one chunk's tokens together: a part of a long one, or several short ones."""
        pieces: list[Piece] = []
        room = self.settings.chunk
        while room and (row := self._next()) is not None:
            place = len(self._decoding)
            start = self.batch.lengths[place]
            part = row.text[start : start + room]
            logits = self.batch.feed(place, [part])
            room -= len(part)
            if self.batch.lengths[place] == len(row.text):
                self._decoding.append(row)
                self._reading = None
                pieces += self._emit(row, self._verdict(row, NOTHING, logits[0]), logits[0])
        return pieces

    def _next(self) -> Row | None:
        """The row whose prompt is being read, or the first of the queue if there is a place for it."""
        if self._reading is None and self._waiting and len(self._decoding) < self.settings.slots:
            self._reading = self._waiting.popleft()
            self._clear(len(self._decoding))
            self._fit(self._reading)
        return self._reading

    def _decode(self, rows: list[Row]) -> list[Piece]:
        began = perf_counter()
        drafts = self._drafts(rows)
        drafted = perf_counter()
        longest = max(len(draft.tokens) for draft in drafts)
        before = self.batch.lengths[: len(rows)]
        if longest:
            self.batch.mark(range(len(rows)))
        logits = self._feed([[row.text[-1], *draft.tokens] for row, draft in zip(rows, drafts, strict=True)])
        verdicts = self._verdicts(rows, drafts, logits)
        for place, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            if longest and isinstance(verdict, list):
                self.batch.rewind(place, before[place] + len(verdict), [*row.text, *verdict])
        self._time(longest, drafted - began, perf_counter() - drafted)
        return [piece for k, row in enumerate(rows) for piece in self._emit(row, verdicts[k], logits[k])]

    def _time(self, longest: int, drafting: float, passing: float) -> None:
        """Learn what drafts and passes cost; the first draft after a step without one also reads what came between."""
        if self.pace is not None:
            self.pace.passed(longest + 1, passing)
            if longest and self._drafting:
                self.pace.drafted(longest, drafting)
        self._drafting = longest > 0

    def _verdicts(
        self, rows: list[Row], drafts: list[Draft], logits: Tensor | list[Tensor]
    ) -> list[list[int] | WorkError]:
        """What every row goes on with; without drafts, which is the most frequent case, for all of them at once."""
        if any(draft.tokens for draft in drafts) or len(rows) == 1:
            return [self._verdict(*each) for each in zip(rows, drafts, logits, strict=True)]
        turns = [Turn(row.request.sampling, row.text, row.generated) for row in rows]
        first = logits[:, 0] if isinstance(logits, Tensor) else torch.stack([each[0] for each in logits])
        found = choose(first[:, : self.vocab], turns)
        return [not_numbers() if token is None else [token] for token in found]

    def _feed(self, texts: list[list[int]]) -> Tensor | list[Tensor]:
        """The logits of each decoding row after its next tokens, [n v] or more.

        Shorter ones are filled up, to be rewound; one by one where what fills a row would not fit its context.
        """
        longest = max(len(text) for text in texts)
        if self.limit is None or max(self.batch.lengths[: len(texts)]) + longest <= self.limit:
            return self.batch.feed(0, [text + [0] * (longest - len(text)) for text in texts], last=longest)
        return [self.batch.feed(place, [text], last=len(text))[0] for place, text in enumerate(texts)]

    def _drafts(self, rows: list[Row]) -> list[Draft]:
        if self.drafter is None:
            return [NOTHING] * len(rows)
        wanted = [Wanted(row.text, row.request.sampling, row.generated, self._draft_length(row)) for row in rows]
        return self.drafter.propose(wanted)

    def _draft_length(self, row: Row) -> int:
        """What this row's own record says, within what it may still generate and its context can still hold."""
        assert self.drafter is not None
        longest, cost = self.settings.draft_tokens, self.drafter.cost
        if self.pace is not None and row.request.sampling.greedy:
            wanted = self.pace.length(row.rate, cost, longest, row.generated)
        else:
            wanted = best_length(row.rate, cost + VERIFYING, longest) or int(tried(row.generated))
        room = self.limit - len(row.text) if self.limit is not None else wanted
        return max(0, min(wanted, room, row.request.tokens - row.generated - 1, self.settings.chunk - 1))

    def _verdict(self, row: Row, draft: Draft, logits: Tensor) -> list[int] | WorkError:
        """The tokens that a row goes on with, from its draft and the logits [n+1 v] after each token fed."""
        try:
            found = self._accepted(row, draft, logits)
        except WorkError as error:
            return error
        row.judged(len(draft.tokens), found.kept)
        self.drafted += len(draft.tokens)
        self.kept += found.kept
        return [*draft.tokens[: found.kept], found.token]

    def _accepted(self, row: Row, draft: Draft, logits: Tensor) -> Accepted:
        sampling = row.request.sampling

        def seen(k: int) -> list[int]:
            return [*row.text, *draft.tokens[:k]]

        if sampling.greedy:
            return accept_greedy(draft.tokens, lambda k: likeliest(logits[k, : self.vocab], sampling, seen(k)))
        laws = [distribution(logits[k : k + 1, : self.vocab], sampling, seen(k)) for k in range(len(draft.tokens) + 1)]
        return accept(
            draft.tokens,
            draft.probabilities,
            torch.cat(laws),
            lambda k, use: uniform(sampling.seed, row.generated + k, use),
        )

    def _emit(self, row: Row, verdict: list[int] | WorkError, logits: Tensor) -> list[Piece]:
        if isinstance(verdict, WorkError):
            return [self._end(row, "error", str(verdict))]
        pieces: list[Piece] = []
        for k, token in enumerate(verdict):
            pieces.append(self._add(row, token, logits, k))
            if pieces[-1].finish is not None:
                break
        return pieces

    def _add(self, row: Row, token: int, logits: Tensor, place: int) -> Piece:
        request = row.request
        logprob, top = self._logprobs(logits, place, token, request.top_logprobs)
        row.add(token)
        ended = token in self._stops and not request.ignore_end
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

    def _logprobs(
        self, logits: Tensor, place: int, token: int, top: int | None
    ) -> tuple[float | None, tuple[Chosen, ...]]:
        if top is None:
            return None, ()
        logprobs: Any = logits[place, : self.vocab].to(torch.float64).log_softmax(-1)
        best = logprobs.topk(min(top, logprobs.shape[-1])) if top else None
        likeliest = () if best is None else tuple(map(Chosen, best.indices.tolist(), best.values.tolist()))
        return float(logprobs[token]), likeliest

    def _slide(self, row: Row) -> None:
        """Start the row again from the newer half of its text."""
        place = self._decoding.index(row)
        self._fit(row)
        self._clear(place)
        self.batch.read(place, row.text[:-1])

    def _clear(self, place: int) -> None:
        self.batch.clear(place)
        if self.drafter is not None:
            self.drafter.clear(place)

    def _move(self, source: int, target: int) -> None:
        self.batch.move(source, target)
        if self.drafter is not None:
            self.drafter.move(source, target)

    def _fit(self, row: Row) -> None:
        """Leave room in the context: a text that fills it keeps its newer half."""
        if self.limit is not None and len(row.text) >= self.limit:
            row.text, row.slid = row.text[-(self.limit // 2) :], True

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
            self._move(last, place)
            self._decoding[place] = self._decoding[last]
        self._decoding.pop()
        if self._reading is not None:
            self._move(last + 1, last)
