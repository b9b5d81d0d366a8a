"""Text as it comes: bytes of tokens joined to characters, and cut where a stop string begins."""

import codecs
from collections.abc import Sequence

from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError


class TextStream:
    """Turns one request's tokens into pieces of text that can be shown at once.

    Only whole characters come out: bytes that end inside one wait for the next token. Text that may be the beginning of
    a stop string waits too; once one is complete, `stopped` is True and neither it nor anything after it comes out.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        if any(not stop for stop in stops):
            raise InputError("stop: an empty string would stop everywhere; leave it out")
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped: str | None = None

    def push(self, token: int) -> str:
        """The text that this token completes, possibly none."""
        return self._release(self._decoder.decode(self._tokenizer.decode_bytes([token])))

    def finish(self) -> str:
        """What was still held back; bytes that never became a character are shown as U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        if self.stopped is not None:
            return ""
        text = self._held + text
        found = [(text.index(stop), stop) for stop in self._stops if stop in text]
        if found:
            end, self.stopped = min(found)
            self._held = ""
            return text[:end]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
