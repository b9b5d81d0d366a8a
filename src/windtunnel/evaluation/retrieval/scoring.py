"""Answers scored in one pass, with the right ones before them; what items of one haystack share is read once.

An answer whose every token is the likeliest after those before it is what greedy decoding gives, so exact match needs
no decoding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.evaluation.retrieval.prompts import Ids, Question
from windtunnel.root import ModelLayer, ModelState

_BATCH_TOKENS = 8192
_WORTH = 0.75  # what sharing must leave of the tokens, for it is done row by row
_FEWEST = 384  # tokens of an item below which rows in a batch are faster in any case
Read = Callable[[int], None]


class Answer(NamedTuple):
    """Nats of an answer, its tokens, and how many of them were the likeliest."""

    nats: float
    tokens: int
    right: int

    @property
    def exact(self) -> bool:
        """Whether greedy decoding gives it."""
        return self.right == self.tokens


@torch.no_grad()
def score(model: ModelLayer, groups: Sequence[Sequence[Question]], read: Read) -> list[list[list[Answer]]]:
    """Answers [group][question][answer], in float32. Questions of a group have much of their beginning in common."""
    found: list[list[list[Answer]]] = [[[] for _ in group] for group in groups]
    rest: list[tuple[int, int]] = []
    with torch.autocast(next(model.parameters()).device.type, enabled=False):
        for place, group in enumerate(groups):
            if shares(group):
                found[place] = _shared(model, group, read)
            else:
                rest += [(place, k) for k in range(len(group))]
        rest.sort(key=lambda where: len(groups[where[0]][where[1]].tokens))
        for rows in _batches([len(groups[place][k].tokens) for place, k in rest]):
            chosen = rest[rows]
            scored = _together(model, [groups[place][k] for place, k in chosen], read)
            for (place, k), answers in zip(chosen, scored, strict=True):
                found[place][k] = answers
    return found


def shares(group: Sequence[Question]) -> bool:
    """Whether reading the common beginnings once is worth it."""
    whole = sum(len(each.tokens) for each in group)
    if len(group) < 2 or whole < _FEWEST * len(group):
        return False
    return reading(group) < _WORTH * whole


def reading(group: Sequence[Question]) -> int:
    """Tokens that are read for a group that shares its beginnings."""
    order, common = _stem(group)
    return common[-1] + sum(len(group[k].tokens) - size for k, size in zip(order, common, strict=True))


def _stem(group: Sequence[Question]) -> tuple[list[int], list[int]]:
    """Questions in the order of what they have in common with the one whose needle is deepest, and how much that is."""
    last = max(range(len(group)), key=lambda k: int(np.argmax(group[k].needle)))
    sizes = [min(_common(each.tokens, group[last].tokens), each.asked - 1) for each in group]
    order = sorted(range(len(group)), key=lambda k: (sizes[k], k))
    return order, [sizes[k] for k in order]


def _common(first: Ids, second: Ids) -> int:
    """Length of the common beginning."""
    size = min(len(first), len(second))
    differs = first[:size] != second[:size]
    return int(np.argmax(differs)) if differs.any() else size


def _shared(model: ModelLayer, group: Sequence[Question], read: Read) -> list[list[Answer]]:
    """The stem is read piece by piece; where a question leaves it, the question's own end is read from that state."""
    order, common = _stem(group)
    stem = group[order[-1]].tokens
    state = model.initial_state(1)
    found: list[list[Answer]] = [[] for _ in group]
    done = 0
    for k, size in zip(order, common, strict=True):
        if size > done:
            _, state = _read(model, stem[done:size], state)
            read(size - done)
            done = size
        hidden, _ = _read(model, group[k].tokens[done:], state)
        read(len(group[k].tokens) - done)
        found[k] = _answers(model, hidden, [group[k].after(done)])[0]
    return found


def _read(model: ModelLayer, ids: Ids, state: ModelState) -> tuple[Tensor, ModelState]:
    tokens = torch.from_numpy(np.ascontiguousarray(ids))[None].to(model.embedding.weight.device)
    encoded = model.encode(tokens, state, model.context_of(tokens, state))
    assert encoded.states is not None
    assert isinstance(state.position, int)
    return encoded.hidden, ModelState(state.position + len(ids), encoded.states)


def _together(model: ModelLayer, questions: Sequence[Question], read: Read) -> list[list[Answer]]:
    longest = max(len(each.tokens) for each in questions)
    tokens = np.zeros((len(questions), longest), np.int64)
    for row, each in enumerate(questions):
        tokens[row, : len(each.tokens)] = each.tokens  # what fills a row stands behind all that is scored
    given = torch.from_numpy(tokens).to(model.embedding.weight.device)
    hidden = model.encode(given, None, model.context_of(given)).hidden
    read(tokens.size)
    return _answers(model, hidden, questions)


def _answers(model: ModelLayer, hidden: Tensor, questions: Sequence[Question]) -> list[list[Answer]]:
    """Logits are formed where there are answers alone."""
    places = [(row, int(step)) for row, each in enumerate(questions) for step in np.flatnonzero(each.answer >= 0)]
    rows, steps = (torch.tensor(part, device=hidden.device) for part in zip(*places, strict=True))
    logits = model.head(hidden[rows, steps], model.embedding.weight).float()
    wanted = torch.tensor([int(questions[row].targets[step]) for row, step in places], device=hidden.device)
    nats = nn.functional.cross_entropy(logits, wanted, reduction="none").cpu().double().numpy()
    right = (logits.argmax(-1) == wanted).cpu().numpy()
    owner = np.array(places)[:, 0]
    number = np.array([int(questions[row].answer[step]) for row, step in places])
    return [
        [
            Answer(float(nats[chosen].sum()), int(chosen.sum()), int(right[chosen].sum()))
            for which in range(int(each.answer.max()) + 1)
            for chosen in [(owner == row) & (number == which)]
        ]
        for row, each in enumerate(questions)
    ]


def _batches(lengths: Sequence[int]) -> list[slice]:
    """Runs of ascending lengths that hold about so many tokens once filled up."""
    found, first = [], 0
    for last in range(1, len(lengths) + 1):
        if last == len(lengths) or (last + 1 - first) * lengths[last] > _BATCH_TOKENS:
            found.append(slice(first, last))
            first = last
    return found
