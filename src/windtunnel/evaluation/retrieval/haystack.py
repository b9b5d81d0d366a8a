"""Texts to hide something in: pieces of held-out documents, and sentences put into them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from windtunnel.errors import InputError
from windtunnel.evaluation.subject import Text

Span = tuple[int, int]  # characters, from the first to the one after the last
_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_SPACE = re.compile(r"\s+")


class Haystacks:
    """Pieces of one text; the same place and size give the same piece."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._tokens = text.split.tokens
        self.tokenizer = text.tokenizer

    def take(self, place: float, tokens: int) -> str:
        """About so many tokens, from a place between 0 and 1 on; documents are parted by an empty line."""
        size = len(self._tokens)
        if size < tokens:
            raise InputError(
                f"{self._text.name}: has {size:,} tokens, and a haystack of {tokens:,} is asked for; name a longer "
                "text by --data, or a shorter length"
            )
        first = int(place * size)
        ids = np.take(self._tokens, np.arange(first, first + tokens), mode="wrap").astype(np.int64)
        ends = np.flatnonzero(ids == self._text.split.end_of_text)
        pieces = [self._decoded(part[part != self._text.split.end_of_text]) for part in np.split(ids, ends)]
        text = "\n\n".join(piece.strip() for piece in pieces if piece.strip())
        start = next((place for place in boundaries(text)[1:] if place <= len(text) // 4), 0)
        return text[start:]

    def _decoded(self, ids: np.ndarray) -> str:
        return self.tokenizer.decode_bytes(ids).decode("utf-8", errors="ignore")


class Hidden(NamedTuple):
    """A text with sentences in it: where each one stands, and its depth, the share of the haystack before it."""

    text: str
    spans: tuple[Span, ...]
    depths: tuple[float, ...]


def boundaries(text: str) -> list[int]:
    """Where a sentence can be put in: before each sentence or line, and at the end; else between words."""
    for pattern in (_BOUNDARY, _SPACE):
        found = sorted({0, len(text), *(match.end() for match in pattern.finditer(text))})
        if len(found) > 2:
            return found
    return [0, len(text)]


def hide(haystack: str, sentences: Sequence[str], depths: Sequence[float]) -> Hidden:
    """Put sentences into a haystack, each at the boundary nearest its depth (0 to 1); equal places keep the order.

    The depths returned are those that came out: characters of the haystack before a sentence by all of its characters.
    """
    able = np.array(boundaries(haystack))
    places = [int(able[np.abs(able - depth * len(haystack)).argmin()]) for depth in depths]
    order = sorted(range(len(sentences)), key=lambda k: (places[k], k))
    text, last = "", 0
    spans: dict[int, Span] = {}
    for k in order:
        text += haystack[last : places[k]]
        last = places[k]
        if text and not text[-1].isspace():
            text += " "
        spans[k] = (len(text), len(text) + len(sentences[k]))
        text += sentences[k] + " "
    text += haystack[last:]
    whole = max(len(haystack), 1)
    return Hidden(text, tuple(spans[k] for k in range(len(spans))), tuple(place / whole for place in places))
