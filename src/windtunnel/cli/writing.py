"""What `windtunnel generate` prints: text as it comes, figures after it, or one JSON document."""

import sys
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windtunnel.cli.figures import bytes_short, grouped
from windtunnel.cli.screen import console, write_json
from windtunnel.errors import InputError
from windtunnel.inference.engine import CacheType
from windtunnel.inference.generate import AtLimit, Drafting, Figures, Generation, ids_of
from windtunnel.inference.request import Piece, Request
from windtunnel.inference.sampling import Sampling
from windtunnel.runs import Run
from windtunnel.training.interruption import noted_signals


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options of the verb came to."""

    run: Run
    folder: Path
    sampling: Sampling
    tokens: int
    stop: tuple[str, ...]
    samples: int
    logprobs: int | None
    draft: Drafting
    at_limit: AtLimit
    as_json: bool
    compiled: bool
    cache_dtype: CacheType | None

    def begin(self, prompt: str | bytes) -> Generation:
        """The samples from one prompt, each with a seed of its own."""
        ids = ids_of(self.run.tokenizer, prompt)
        requests = [
            Request(
                prompt=ids,
                sampling=self.sampling.replace(seed=self.sampling.seed + place),
                tokens=self.tokens,
                stop=self.stop,
                top_logprobs=self.logprobs,
            )
            for place in range(self.samples)
        ]
        return Generation(self.run, requests, self.draft, self.at_limit, self.compiled, _say, self.cache_dtype)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def write(asked: Asked, prompt: str | bytes) -> bool:
    """Print what follows a prompt; False if Ctrl-C ended it, after what there was until then.

    The first Ctrl-C is noted and acted upon after the token at work, since an exception raised there may be swallowed
    by what happens to run; a second one interrupts a long prompt.
    """
    generation = asked.begin(prompt)
    sheet = _Sheet(asked.samples, silent=asked.as_json)
    finished = True
    with noted_signals() as signals:
        try:
            for piece in generation:
                sheet.add(piece)
                if signals.received is not None:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            finished = False
            for piece in generation.cancel():
                sheet.add(piece)
    if asked.as_json:
        write_json(_record(asked, sheet, generation.figures))
    else:
        sheet.end()
        console(stderr=True).print(_remarks(sheet, generation.figures), style="dim", markup=False)
    return finished


def ask(asked: Asked) -> bool:
    """Prompts from the terminal, one after another, until Ctrl-D; Ctrl-C ends a text, or the asking."""
    import readline  # noqa: F401 - gives `input` its line editing

    asked.begin("")  # what cannot be is said before anything is asked
    console(stderr=True).print(
        "Type a prompt and press Enter; Ctrl-C ends a text, Ctrl-D leaves.", style="dim", markup=False
    )
    while True:
        try:
            prompt = input("prompt> ")
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return True
        try:
            write(asked, prompt)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)


def shown(text: str) -> str:
    """Text that a terminal cannot take for a command: control characters but tabs and line ends become U+FFFD."""
    return "".join(
        "\ufffd" if unicodedata.category(letter) == "Cc" and letter not in "\n\t" else letter for letter in text
    )


@dataclass
class _Text:
    """One sample so far."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    finish: str | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.finish = piece.finish or self.finish
        if piece.token is not None:
            self.tokens.append(piece.token)
            self.pieces.append(piece)


class _Sheet:
    """The samples on stdout, one after another: the first unfinished one as it comes, the next once it is done."""

    def __init__(self, samples: int, silent: bool) -> None:
        self.texts = [_Text() for _ in range(samples)]
        self._silent, self._current, self._written = silent, 0, 0
        self._safe = shown if sys.stdout.isatty() else str

    def add(self, piece: Piece) -> None:
        self.texts[piece.request].add(piece)
        while not self._silent and self._current < len(self.texts):
            text = self.texts[self._current]
            if len(self.texts) > 1 and not self._written and text.text:
                self._put(f"--- {self._current + 1} of {len(self.texts)}\n")
            self._put(self._safe(text.text[self._written :]))
            self._written = len(text.text)
            if text.finish is None or self._current == len(self.texts) - 1:
                break
            self._put("" if text.text.endswith("\n") else "\n")
            self._current, self._written = self._current + 1, 0

    def end(self) -> None:
        """A terminal's next line, or a file's, begins after the text."""
        last = self.texts[-1].text
        self._put("" if last.endswith("\n") else "\n")

    def _put(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()


def _remarks(sheet: _Sheet, figures: Figures) -> str:
    """One line of what it cost, after one on what became of the text where that is not plain."""
    parts = [
        f"{grouped(figures.new_tokens)} tokens after {grouped(figures.prompt_tokens)}",
        f"{figures.tokens_per_second:.0f} tokens/s",
        f"first after {1000 * figures.first_seconds:.0f} ms",
    ]
    if figures.acceptance is not None:
        parts.append(f"{figures.acceptance:.0%} of {grouped(figures.drafted)} drafted tokens kept")
        parts.append(f"{figures.tokens_per_pass:.2f} tokens a pass")
    parts.append(f"state {bytes_short(figures.state_bytes)}")
    said = ", ".join(parts)
    if any(text.finish == "limit" for text in sheet.texts):
        said = f"The context is full; --at-limit slide goes on.\n{said}"
    if figures.slides:
        times = "once" if figures.slides == 1 else f"{figures.slides} times"
        said = f"The context was full {times}: the older half of the text was forgotten.\n{said}"
    return said


def _record(asked: Asked, sheet: _Sheet, figures: Figures) -> dict[str, Any]:
    seeds = range(asked.sampling.seed, asked.sampling.seed + asked.samples)
    return {
        "run": str(asked.folder),
        "checkpoint": asked.run.record["checkpoint"],
        "settings": asked.sampling.to_json() | {"tokens": asked.tokens, "stop": asked.stop, "at_limit": asked.at_limit},
        "samples": [_sample(asked, text, seed) for text, seed in zip(sheet.texts, seeds, strict=True)],
        "usage": {
            "prompt_tokens": figures.prompt_tokens // asked.samples,
            "new_tokens": figures.new_tokens,
            "state_bytes": figures.state_bytes,
        },
        "timing": {
            "seconds": figures.seconds,
            "first_token_seconds": figures.first_seconds,
            "tokens_per_second": figures.tokens_per_second,
        },
        "speculation": None
        if asked.draft is None
        else {
            "drafted": figures.drafted,
            "kept": figures.kept,
            "acceptance": figures.acceptance,
            "tokens_per_pass": figures.tokens_per_pass,
        },
    }


def _sample(asked: Asked, text: _Text, seed: int) -> dict[str, Any]:
    record: dict[str, Any] = {"text": text.text, "tokens": text.tokens, "finish": text.finish, "seed": seed}
    record["slides"] = sum(piece.slid for piece in text.pieces)
    if asked.logprobs is not None:
        record["logprobs"] = [_logprobs(asked, piece) for piece in text.pieces]
    return record


def _logprobs(asked: Asked, piece: Piece) -> dict[str, Any]:
    assert asked.run.tokenizer is not None
    assert piece.token is not None
    named = asked.run.tokenizer.decode
    return {
        "token": piece.token,
        "text": named([piece.token]),
        "logprob": piece.logprob,
        "top": [{"token": each.token, "text": named([each.token]), "logprob": each.logprob} for each in piece.top],
    }
