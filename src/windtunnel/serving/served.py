"""What is served: runs with their engines, the limits on a request, and requests put into the engine's terms."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError
from windtunnel.inference.compiled import Say
from windtunnel.inference.engine import Engine, EngineSettings
from windtunnel.inference.generate import Drafting, drafter_of, ids_of
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.runs import Run
from windtunnel.serving.faults import Fault
from windtunnel.serving.wire import ChatRequest, CompletionRequest, Message, Settings
from windtunnel.serving.worker import Worker
from windtunnel.spec import Spec

END = "<|endoftext|>"  # how the token without text is written
_COMPLETION_TOKENS = 16  # OpenAI's default
_CHAT_TOKENS = 256
_NEXT_CHOICE = 1 << 64  # seeds on the wire are below it, so no two choices share one


class Limits(Spec):
    """What one request may take. body: bytes. tokens: new ones of a text. seconds: from its arrival to its last token,
    waiting included. reading: seconds for its body to arrive."""

    body: int = 1 << 20
    tokens: int = 4096
    seconds: float = 600.0
    reading: float = 20.0

    def validate(self) -> None:
        for name in ("body", "tokens", "seconds", "reading"):
            self.require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")


@dataclass
class Served:
    """A run under its name, and the worker that decodes with it."""

    name: str
    run: Run
    tokenizer: Tokenizer
    worker: Worker
    created: int
    fingerprint: str = field(init=False)
    parameters: int = field(init=False)

    def __post_init__(self) -> None:
        self.fingerprint = self.run.spec.fingerprint()[:16]
        self.parameters = sum(each.numel() for each in self.run.model.parameters())

    def written(self, token: int) -> str:
        """A token as text; bytes that are no whole characters as OpenAI writes them, `bytes:\\xe2\\x80`."""
        if token in self.tokenizer.stops:
            return END
        data = self.tokenizer.decode_bytes([token])
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{each:02x}" for each in data)


def serve_run(
    name: str,
    run: Run,
    settings: EngineSettings | None = None,
    draft: Drafting = None,
    threads: int | None = None,
    say: Say | None = None,
) -> Served:
    """Set a run up to be served. Raises `InputError` for a run that has no text or a draft of another tokenizer."""
    tokenizer = run.tokenizer
    if tokenizer is None:
        raise InputError(f"{name}: the run has no tokenizer, so there is no text to serve")
    drafter = drafter_of(run, draft)
    record = Path(str(run.record["checkpoint"]))
    created = int(record.stat().st_mtime) if record.exists() else 0
    worker = Worker(name, lambda: Engine(run.model, tokenizer, settings, drafter, say), threads)
    return Served(name, run, tokenizer, worker, created)


def completion_requests(body: CompletionRequest, served: Served, limits: Limits) -> list[Request]:
    """A request for each prompt and choice, choices of one prompt side by side."""
    count = _tokens(body.max_tokens or min(_COMPLETION_TOKENS, limits.tokens), limits, "max_tokens")
    prompts = [_ids(served.tokenizer, prompt) for prompt in body.prompts]
    return [
        request for prompt in prompts for request in _choices(body, prompt, count, body.stops, body.logprobs, served)
    ]


def chat_requests(body: ChatRequest, served: Served, limits: Limits) -> list[Request]:
    """A request for each choice of the answer."""
    asked = body.max_completion_tokens or body.max_tokens
    if body.max_completion_tokens and body.max_tokens not in (None, body.max_completion_tokens):
        raise Fault(400, "max_tokens and max_completion_tokens differ; give one", "contradiction", "max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise Fault(400, "top_logprobs needs logprobs to be true", "contradiction", "top_logprobs")
    count = _tokens(asked or min(_CHAT_TOKENS, limits.tokens), limits, "max_tokens")
    prompt = _ids(served.tokenizer, plain_template(body.messages))
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _choices(body, prompt, count, (*body.stops, "\nUser:"), logprobs, served)


def plain_template(messages: Sequence[Message]) -> str:
    """A conversation as a text that a base model may go on with; it was not trained on this form."""
    names = {"user": "User: ", "assistant": "Assistant: "}
    turns = [names.get(message.role, "") + message.text for message in messages]
    return "\n\n".join([*turns, "Assistant:"])


def _tokens(count: int, limits: Limits, name: str) -> int:
    if count > limits.tokens:
        raise Fault(400, f"{name}: this server gives at most {limits.tokens} tokens, got {count}", "too_many", name)
    return count


def _choices(
    body: Settings, prompt: tuple[int, ...], tokens: int, stops: tuple[str, ...], logprobs: int | None, served: Served
) -> list[Request]:
    engine = served.worker.engine
    if engine.limit is not None and len(prompt) >= engine.limit and engine.settings.at_limit == "stop":
        raise Fault(
            400,
            f"prompt: {len(prompt)} tokens leave no room in a context of {engine.limit}",
            "context_length_exceeded",
            "messages" if isinstance(body, ChatRequest) else "prompt",
        )
    seed = secrets.randbits(48) if body.seed is None else body.seed
    return [
        Request(
            prompt=prompt,
            sampling=_sampling(body, seed + place * _NEXT_CHOICE),
            tokens=tokens,
            stop=stops,
            top_logprobs=logprobs,
        )
        for place in range(body.n or 1)
    ]


def _sampling(body: Settings, seed: int) -> Sampling:
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=body.top_k,
        top_p=None if body.top_p == 1 else body.top_p,  # clients send it beside temperature 0; it changes nothing
        min_p=None if body.min_p == 0 else body.min_p,
        repetition_penalty=body.repetition_penalty or 1.0,
        seed=seed,
    )


def _ids(tokenizer: Tokenizer, prompt: str | list[int]) -> tuple[int, ...]:
    try:
        return ids_of(tokenizer, prompt)
    except InputError as error:
        raise InputError(f"prompt: {error}") from error
