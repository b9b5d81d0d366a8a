"""Text from a trained run: `generate` for all of it at once, `Generation` for its pieces as they come."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError, WorkError
from windtunnel.inference.batch import limit_of
from windtunnel.inference.compiled import Say
from windtunnel.inference.engine import CacheType, Engine, EngineSettings
from windtunnel.inference.request import Piece, Request
from windtunnel.inference.sampling import Sampling
from windtunnel.inference.states import state_bytes
from windtunnel.root import ModelLayer
from windtunnel.runs import Run

_SLOTS = 16  # texts that are decoded side by side; more wait for a place

AtLimit = Literal["stop", "slide"]
Drafting = Run | Literal["lookup"] | None
Prompt = TypeVar("Prompt", str, list[str], list[int], list[list[int]])


class Figures(NamedTuple):
    """What a generation cost.

    seconds, first_seconds: from the first pass to the last token, and to the first. tokens_per_pass: new tokens of a
    text for each pass of the model that gave it any; 1 without drafts. drafted, kept: tokens. state_bytes: of the
    state that was set aside for all texts, without the drafter's.
    """

    prompt_tokens: int
    new_tokens: int
    seconds: float
    first_seconds: float
    tokens_per_pass: float
    drafted: int
    kept: int
    slides: int
    state_bytes: int

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all texts together, the prompts' time included."""
        return self.new_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def acceptance(self) -> float | None:
        """Share of the drafted tokens that were kept; None where nothing was drafted."""
        return self.kept / self.drafted if self.drafted else None


class Generation:
    """The texts that go on from some requests. Iterating gives their pieces as they come; `figures` afterwards.

    A piece's `request` is the place of its request, from 0. The texts share one engine, but each is what it would be
    alone. compiled, say, cache_dtype: as for an `Engine`.
    """

    def __init__(
        self,
        run: Run,
        requests: Sequence[Request],
        draft: Drafting = None,
        at_limit: AtLimit = "stop",
        compiled: bool = False,
        say: Say | None = None,
        cache_dtype: CacheType | None = None,
    ) -> None:
        if at_limit not in ("stop", "slide"):
            raise InputError(f"at_limit: expected stop or slide, got {at_limit!r}")
        if not requests:
            raise InputError("prompt: the list is empty; give at least one")
        if any(request.stop for request in requests) and run.tokenizer is None:
            raise InputError("stop: the run has no tokenizer, so there is no text to stop at")
        settings = EngineSettings(
            slots=min(len(requests), _SLOTS),
            queue=len(requests),
            context=_room(run.model, requests),
            at_limit=at_limit,
            cache_dtype=cache_dtype,
            compiled=compiled,
        )
        self.requests = tuple(requests)
        self._engine = Engine(run.model, run.tokenizer, settings, drafter_of(run, draft), say)
        self._places = {self._engine.submit(request): place for place, request in enumerate(requests)}
        self._began = self._first = self._last = 0.0
        self._tokens = self._passes = self._slides = 0

    def __iter__(self) -> Iterator[Piece]:
        self._began = self._first = self._last = time.perf_counter()
        while self._engine.busy:
            pieces = self._engine.step()
            self._count(pieces)
            for piece in pieces:
                if piece.finish == "error":
                    raise WorkError(piece.message)
                yield self._placed(piece)

    def cancel(self) -> list[Piece]:
        """End what is not finished; the last pieces hold the text that was still held back."""
        ended = [self._engine.cancel(number) for number in self._places]
        return [self._placed(piece) for piece in ended if piece is not None]

    @property
    def figures(self) -> Figures:
        """What it cost so far."""
        return Figures(
            prompt_tokens=sum(len(request.prompt) for request in self.requests),
            new_tokens=self._tokens,
            seconds=self._last - self._began,
            first_seconds=self._first - self._began,
            tokens_per_pass=self._tokens / self._passes if self._passes else 0.0,
            drafted=self._engine.drafted,
            kept=self._engine.kept,
            slides=self._slides,
            state_bytes=state_bytes(self._engine.batch.state),
        )

    def _count(self, pieces: list[Piece]) -> None:
        if pieces:
            self._last = time.perf_counter()
            self._first = self._first if self._tokens else self._last
        self._tokens += sum(piece.token is not None for piece in pieces)
        self._passes += len({piece.request for piece in pieces})
        self._slides += sum(piece.slid for piece in pieces)

    def _placed(self, piece: Piece) -> Piece:
        return piece._replace(request=self._places[piece.request])


def generate(
    run: Run,
    prompt: Prompt,
    tokens: int = 128,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: str | Sequence[str] = (),
    seed: int = 0,
    draft: Drafting = None,
    at_limit: AtLimit = "stop",
    compiled: bool = False,
    cache_dtype: CacheType | None = None,
) -> Prompt:
    """The text that follows a prompt, without the prompt; for a list of prompts, each as it would be alone.

    prompt: text, which begins a document as in training (after an end of text); or token ids as they stand, whose
    answer is token ids. A run without a tokenizer takes ids only. tokens: at most so many new ones; an end of text
    ends it before. temperature .. repetition_penalty, seed: see `Sampling`; 0 is greedy. stop: texts that end it,
    left out themselves. draft: a run with the same tokenizer, or "lookup" for copies out of the text: faster, with
    exactly the same distribution. at_limit: where the model's context is full, "stop", or "slide": go on from the
    newer half of the text. compiled: decode by a compiled step, which takes a minute or so to make, once for a spec and
    machine, and is kept in the user's cache folder; worth it for long or many texts. cache_dtype: "bfloat16" or
    "float16" keeps keys and values in half the memory, and rounds them; None keeps them in the model's type.

    Raises `InputError` for settings that contradict each other, a prompt that fills the context and a draft of another
    tokenizer; `WorkError` where the model's logits are not numbers.
    """
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    single = isinstance(prompt, str) or (bool(prompt) and not isinstance(prompt[0], str | Sequence))
    prompts: list[Any] = [prompt] if single else list(prompt)
    requests = [
        Request(prompt=ids_of(run.tokenizer, each), sampling=sampling, tokens=tokens, stop=stops) for each in prompts
    ]
    texts: list[str] = [""] * len(prompts)
    ids: list[list[int]] = [[] for _ in prompts]
    for piece in Generation(run, requests, draft, at_limit, compiled, cache_dtype=cache_dtype):
        texts[piece.request] += piece.text
        if piece.token is not None:
            ids[piece.request].append(piece.token)
    answers = [text if isinstance(each, str) else new for each, text, new in zip(prompts, texts, ids, strict=True)]
    result: Any = answers[0] if single else answers
    return result  # type: ignore[no-any-return]


def ids_of(tokenizer: Tokenizer | None, prompt: str | bytes | Sequence[int]) -> tuple[int, ...]:
    """A prompt's tokens. Text begins a document, as in training; ids are taken as they stand."""
    if not isinstance(prompt, str | bytes):
        return tuple(int(token) for token in prompt)
    if tokenizer is None:
        raise InputError("prompt: the run has no tokenizer; give token ids instead of text")
    return (tokenizer.begin_of_text, *tokenizer.encode(prompt).tolist())


def _room(model: ModelLayer, requests: Sequence[Request]) -> int | None:
    """The context to set aside: no more than the texts can need."""
    own = limit_of(model)
    needed = max(len(request.prompt) + request.tokens for request in requests)
    return needed if own is not None and needed < own else None


def drafter_of(run: Run, draft: Drafting) -> ModelLayer | Literal["lookup"] | None:
    """The drafting model, for an engine. Refused where its tokens are not the run's: equal ids would be other texts."""
    if draft is None or draft == "lookup":
        return draft
    if not isinstance(draft, Run):
        raise InputError(f"draft: expected another run, 'lookup' or None, got {draft!r}")
    ours, theirs = (None if each.tokenizer is None else each.tokenizer.fingerprint for each in (run, draft))
    if ours != theirs:
        raise InputError(
            f"draft: has the tokenizer {_named(draft)}, the run {_named(run)}; a draft's tokens must mean the same, "
            "so train both with one tokenizer"
        )
    devices = [each.model.embedding.weight.device for each in (run, draft)]
    if devices[0] != devices[1]:
        raise InputError(f"draft: is on {devices[1]}, the run on {devices[0]}; load both on one device")
    return draft.model


def _named(run: Run) -> str:
    tokenizer = run.tokenizer
    return "none" if tokenizer is None else f"{tokenizer.label} ({tokenizer.fingerprint[:8]})"
