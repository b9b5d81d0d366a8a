"""A question as text, and as tokens with what is scored."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError
from windtunnel.evaluation.retrieval.haystack import Hidden, Span

Ids = NDArray[np.int64]
UNSCORED = -1
_ATTEMPTS = 12


class Prompt(NamedTuple):
    """A text whose end answers what it asks.

    answers: spans of the answers; needles: of what they are found in; begins: the character where the question does.
    """

    text: str
    answers: tuple[Span, ...]
    needles: tuple[Span, ...]
    depth: float
    begins: int = 0

    @property
    def references(self) -> tuple[str, ...]:
        """The answers in words."""
        return tuple(self.text[start:end].strip() for start, end in self.answers)


class Question(NamedTuple):
    """A prompt in tokens. answer: for each token, the number of the answer that is due after it, or -1."""

    tokens: Ids  # t: an end_of_text first; the last token of the text is due after the last of these
    targets: Ids  # t, -1 where nothing is scored
    answer: Ids  # t
    needle: NDArray[np.bool_]  # t: keys that hold an answer

    def after(self, done: int) -> "Question":
        """What is left of it after so many tokens."""
        return Question(self.tokens[done:], self.targets[done:], self.answer[done:], self.needle[done:])

    @property
    def asked(self) -> int:
        """Tokens before the first one that must predict an answer, that one included."""
        return int(np.argmax(self.answer != UNSCORED)) + 1


def ask(hidden: Hidden, pieces: Sequence[tuple[str, str]], needles: Sequence[int] = (0,)) -> Prompt:
    """A prompt: a text, then pieces (what is said, its answer) one after the other. needles: those asked for."""
    text, answers = hidden.text.rstrip() + "\n", []
    begins = len(text)
    for said, answer in pieces:
        text += said
        answers.append((len(text), len(text) + len(answer) + 1))
        text += f" {answer}"
    depth = hidden.depths[needles[0]] if hidden.depths else 0.0
    return Prompt(text, tuple(answers), tuple(hidden.spans[k] for k in needles if k < len(hidden.spans)), depth, begins)


def question(tokenizer: Tokenizer, prompt: Prompt) -> Question:
    """A prompt in tokens. A token belongs to a span if any of its bytes do.

    Raises `InputError` where the tokenizer cannot write the text.
    """
    ids = encoded(tokenizer, prompt.text)
    ends = np.cumsum(tokenizer.token_bytes[ids]) - len(tokenizer.prefix)
    starts = ends - tokenizer.token_bytes[ids]
    answer = np.full(len(ids), UNSCORED, np.int64)
    for number, span in enumerate(prompt.answers):
        answer[_inside(prompt.text, span, starts, ends)] = number
    needle = np.zeros(len(ids), bool)
    for span in prompt.needles:
        needle |= _inside(prompt.text, span, starts, ends)
    tokens = np.concatenate([[tokenizer.end_of_text], ids[:-1]])
    return Question(tokens, np.where(answer >= 0, ids, UNSCORED), answer, np.concatenate([[False], needle[:-1]]))


def encoded(tokenizer: Tokenizer, text: str) -> Ids:
    """A text's tokens, which must stand for the very same text."""
    try:
        ids = tokenizer.encode(text)
    except InputError as error:
        raise InputError(
            f"tokenizer {tokenizer.label}: cannot write the task's texts: {error}; or leave the task out"
        ) from error
    if tokenizer.decode_bytes(ids) != tokenizer.prefix + text.encode():
        lost = next((c for c in sorted(set(text)) if c not in tokenizer.decode(tokenizer.encode(c))), "a character")
        raise InputError(
            f"tokenizer {tokenizer.label}: cannot write {lost!r}, which the task's texts hold; choose "
            "runs whose tokenizer holds all text, such as bytes, or leave the task out"
        )
    return ids


def keys_of(tokenizer: Tokenizer, prompt: Prompt, span: Span) -> NDArray[np.bool_]:
    """Which of a question's tokens belong to a span of its text."""
    return question(tokenizer, prompt._replace(needles=(span,))).needle


def fitted(
    tokenizer: Tokenizer, length: int, make: Callable[[int], list[Prompt]], name: str
) -> list[tuple[Prompt, Question]]:
    """Prompts whose longest has at most `length` tokens, as near as it gets; make: from a haystack's tokens to prompts.

    Raises `InputError` where the question leaves no room.
    """
    budget, best = length, None
    for _ in range(_ATTEMPTS):
        found = [(prompt, question(tokenizer, prompt)) for prompt in make(budget)]
        over = max(len(asked.tokens) for _, asked in found) - length
        if over <= 0:
            best = found
            break
        budget -= over
        if budget < 1:
            needed = length - budget
            raise InputError(
                f"{name}: {length:,} tokens leave no room for a text beside the question and the needles, which take "
                f"about {needed:,}; ask for longer ones"
            )
    if best is None:
        raise InputError(f"{name}: no text of at most {length:,} tokens could be made; ask for other lengths")
    return best


def _inside(text: str, span: Span, starts: Ids, ends: Ids) -> NDArray[np.bool_]:
    first, last = (len(text[:place].encode()) for place in span)
    inside: NDArray[np.bool_] = (starts < last) & (ends > first)
    return inside
