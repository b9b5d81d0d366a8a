"""From pieces to answers: whole ones and chunks of streams, of completions and of conversations."""

import secrets
import time
from collections.abc import Sequence
from typing import Literal, Protocol

from windtunnel.inference.request import Piece, Request
from windtunnel.serving import wire
from windtunnel.serving.served import Served

Reason = Literal["stop", "length"] | None


class Text:
    """One choice: its pieces so far. held: tokens of it, the prompt's included, that the model still knows.

    limit: of the model's context; a text that slid goes on from the newer half.
    """

    def __init__(self, request: Request, limit: int | None) -> None:
        self.request, self._limit = request, limit
        self.pieces: list[Piece] = []
        self.characters = 0
        self.held = len(request.prompt)

    def add(self, piece: Piece) -> int:
        """Take a piece; returns the place in the text, in characters, at which it stands."""
        place = self.characters
        self.pieces.append(piece)
        self.characters += len(piece.text)
        if piece.slid and self._limit is not None:
            self.held = self._limit // 2
        self.held += piece.token is not None
        return place

    @property
    def tokens(self) -> int:
        """New tokens."""
        return sum(piece.token is not None for piece in self.pieces)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return bool(self.pieces) and self.pieces[-1].finish is not None


def usage(texts: Sequence[Text], prompts: int) -> wire.Usage:
    """Tokens of an answer; the prompt of several choices counts once."""
    each = len(texts) // prompts
    read = sum(len(text.request.prompt) for text in texts[::each])
    new = sum(text.tokens for text in texts)
    return wire.Usage(prompt_tokens=read, completion_tokens=new, total_tokens=read + new)


class Answer(Protocol):
    """How an endpoint writes its answers. endpoint: its name in the metrics."""

    endpoint: str

    def whole(self, texts: Sequence[Text], usage: wire.Usage) -> wire.Completion | wire.Chat:
        """The answer in one."""

    def chunk(self, index: int, text: Text, piece: Piece, place: int) -> wire.Completion | wire.Chat:
        """What one piece of one choice adds."""

    def last(self, usage: wire.Usage) -> wire.Completion | wire.Chat:
        """The chunk that holds nothing but the usage."""


class CompletionAnswer:
    """Answers of /v1/completions."""

    endpoint = "completions"

    def __init__(self, served: Served) -> None:
        self.served, self.id, self.created = served, f"cmpl-{secrets.token_hex(12)}", int(time.time())

    def whole(self, texts: Sequence[Text], usage: wire.Usage) -> wire.Completion:
        """The answer in one."""
        choices = [self._choice(index, text.request, text.pieces, 0) for index, text in enumerate(texts)]
        return self._answer(choices, usage)

    def chunk(self, index: int, text: Text, piece: Piece, place: int) -> wire.Completion:
        """What one piece of one choice adds."""
        return self._answer([self._choice(index, text.request, [piece], place)], None)

    def last(self, usage: wire.Usage) -> wire.Completion:
        """The chunk that holds nothing but the usage."""
        return self._answer([], usage)

    def _answer(self, choices: list[wire.CompletionChoice], usage: wire.Usage | None) -> wire.Completion:
        answer = wire.Completion(
            id=self.id,
            object="text_completion",
            created=self.created,
            model=self.served.name,
            system_fingerprint=self.served.fingerprint,
            choices=choices,
        )
        if usage is not None:
            answer.usage = usage
        return answer

    def _choice(self, index: int, request: Request, pieces: Sequence[Piece], place: int) -> wire.CompletionChoice:
        return wire.CompletionChoice(
            index=index,
            text="".join(piece.text for piece in pieces),
            logprobs=None if request.top_logprobs is None else self._logprobs(request, pieces, place),
            finish_reason=_reason(pieces[-1]),
        )

    def _logprobs(self, request: Request, pieces: Sequence[Piece], place: int) -> wire.CompletionLogprobs:
        found = wire.CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=None, text_offset=[])
        likeliest: list[dict[str, float]] = []
        for piece in pieces:
            if piece.token is not None and piece.logprob is not None:
                found.tokens.append(self.served.written(piece.token))
                found.token_logprobs.append(piece.logprob)
                found.text_offset.append(place)
                likeliest.append({self.served.written(each.token): each.logprob for each in piece.top})
            place += len(piece.text)
        found.top_logprobs = likeliest if request.top_logprobs else None
        return found


class ChatAnswer:
    """Answers of /v1/chat/completions."""

    endpoint = "chat"

    def __init__(self, served: Served) -> None:
        self.served, self.id, self.created = served, f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def whole(self, texts: Sequence[Text], usage: wire.Usage) -> wire.Chat:
        """The answer in one."""
        choices = [self._whole_choice(index, text) for index, text in enumerate(texts)]
        return self._answer("chat.completion", choices, usage)

    def chunk(self, index: int, text: Text, piece: Piece, place: int) -> wire.Chat:
        """What one piece of one choice adds; the first one says who speaks."""
        content = _opening(piece.text, place)
        first = len(text.pieces) == 1
        choice = wire.ChatChoice(
            index=index,
            delta=wire.ChatMessage(role="assistant", content=content) if first else wire.ChatMessage(content=content),
            logprobs=self._logprobs(text.request, [piece]),
            finish_reason=_reason(piece),
        )
        return self._answer("chat.completion.chunk", [choice], None)

    def last(self, usage: wire.Usage) -> wire.Chat:
        """The chunk that holds nothing but the usage."""
        return self._answer("chat.completion.chunk", [], usage)

    def _answer(
        self,
        kind: Literal["chat.completion", "chat.completion.chunk"],
        choices: list[wire.ChatChoice],
        usage: wire.Usage | None,
    ) -> wire.Chat:
        answer = wire.Chat(
            id=self.id,
            object=kind,
            created=self.created,
            model=self.served.name,
            system_fingerprint=self.served.fingerprint,
            template="plain",
            choices=choices,
        )
        if usage is not None:
            answer.usage = usage
        return answer

    def _whole_choice(self, index: int, text: Text) -> wire.ChatChoice:
        content = "".join(piece.text for piece in text.pieces)
        return wire.ChatChoice(
            index=index,
            message=wire.ChatMessage(role="assistant", content=_opening(content, 0)),
            logprobs=self._logprobs(text.request, text.pieces),
            finish_reason=_reason(text.pieces[-1]),
        )

    def _logprobs(self, request: Request, pieces: Sequence[Piece]) -> wire.ChatLogprobs | None:
        if request.top_logprobs is None:
            return None
        return wire.ChatLogprobs(
            content=[
                wire.ChosenLogprob(
                    **dict(self._token(piece.token, piece.logprob)),
                    top_logprobs=[self._token(*each) for each in piece.top],
                )
                for piece in pieces
                if piece.token is not None and piece.logprob is not None
            ]
        )

    def _token(self, token: int, logprob: float) -> wire.TokenLogprob:
        data = list(self.served.tokenizer.decode_bytes([token]))
        return wire.TokenLogprob(token=self.served.written(token), logprob=logprob, bytes=data)


def _opening(text: str, place: int) -> str:
    """The template ends before the space that follows `Assistant:`."""
    return text.removeprefix(" ") if place == 0 else text


def _reason(piece: Piece) -> Reason:
    """A full context ends a text as a number of tokens does."""
    if piece.finish is None:
        return None
    return "stop" if piece.finish == "stop" else "length"
