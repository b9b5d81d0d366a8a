"""What comes over the wire: OpenAI's request models, strict, with the extra settings that the engine knows.

Fields of OpenAI's that change nothing at one value are accepted at that value alone, so nothing is silently ignored
that would have changed the answer. `user` and `metadata` label a request and never do.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_LONGEST_LIST = 64
_Zero = Annotated[float, Field(ge=0, le=0)]
_Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Stops = Annotated[list[Stop], Field(max_length=16)]


class Strict(BaseModel):
    """No coercion, no unknown field, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(Strict):
    """include_usage: a last chunk with the tokens counted. include_state: bytes of the text's decoding state, with
    every chunk."""

    include_usage: bool = False
    include_state: bool = False


class Settings(Strict):
    """What both kinds of request share. Absent settings and null are the same."""

    model: Annotated[str, Field(max_length=256, description="A served run's name; /v1/models lists them.")]
    temperature: Annotated[float, Field(ge=0, le=100, description="0 takes the likeliest token.")] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=_LONGEST_LIST)] | None = None
    stop: Stop | Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: _Zero | None = None
    presence_penalty: _Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: dict[str, str] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionRequest(Settings):
    """POST /v1/completions. Text begins a document, as in training; token ids are taken as they stand."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=_LONGEST_LIST)]
        | Annotated[list[_Token], Field(min_length=1)]
        | Annotated[list[Annotated[list[_Token], Field(min_length=1)]], Field(min_length=1, max_length=_LONGEST_LIST)]
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or many."""
        prompt: Any = self.prompt
        single = isinstance(prompt, str) or isinstance(prompt[0], int)
        return [prompt] if single else prompt


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: Annotated[str, Field(max_length=64)] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(Settings):
    """POST /v1/chat/completions. The models are base models: the conversation is written out by a plain template."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class Problem(BaseModel):
    """What was wrong. param: the field that it was about."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is not 200 has this body, as OpenAI's have."""

    error: Problem


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(BaseModel):
    """Of each token: its text, its log-probability in nats under the model itself, the likeliest ones, its place."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One text."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    """The answer of /v1/completions, and a chunk of its stream. state_bytes: of the decoding state, where asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    state_bytes: int | None = None


class TokenLogprob(BaseModel):
    """A token. bytes: what it stands for, which need not be whole characters."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    """A token that was chosen, and the likeliest ones in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """Of each token of the answer."""

    content: list[ChosenLogprob]


class ChatMessage(BaseModel):
    """An answer, or what is added to it; the first chunk of a stream says who speaks."""

    role: Literal["assistant"] | None = None
    content: str


class ChatChoice(BaseModel):
    """One answer: `message` in a whole one, `delta` in a stream."""

    index: int
    message: ChatMessage | None = None
    delta: ChatMessage | None = None
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Chat(BaseModel):
    """The answer of /v1/chat/completions, and a chunk of its stream. template: how the conversation was written out."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    template: Literal["plain"]
    choices: list[ChatChoice]
    usage: Usage | None = None
    state_bytes: int | None = None


class Card(BaseModel):
    """A served run. context: tokens that a text can have, null where nothing bounds it. parameters: how many."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["windtunnel"] = "windtunnel"
    fingerprint: str
    parameters: int
    context: int | None
    max_tokens: int
    tokenizer: str


class Cards(BaseModel):
    """All served runs."""

    object: Literal["list"] = "list"
    data: list[Card]


class Health(BaseModel):
    """ok while every engine takes requests."""

    status: Literal["ok", "stopping"]
    models: dict[str, Literal["ok", "stopping"]]
