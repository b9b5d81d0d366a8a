"""Log-likelihoods of continuations: many pairs of context and answer, a batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.root import ModelLayer

_ROWS = 512  # of which logits are formed at once


class Pair(NamedTuple):
    """Tokens that are given, at least one, and tokens that are to follow them."""

    context: Sequence[int]
    answer: Sequence[int]


class Likelihood(NamedTuple):
    """Nats of the answer (its log-likelihood, at most 0), and whether each of its tokens is the likeliest one."""

    nats: float
    greedy: bool


@torch.inference_mode()
def likelihoods(
    model: ModelLayer,
    pairs: Sequence[Pair],
    length: int,
    batch_size: int = 8,
    report: Callable[[int], object] = lambda done: None,
) -> list[Likelihood]:
    """Each pair's own figures; what shares its batch makes no difference beyond rounding.

    length: tokens that the model is given at most; a longer context loses its beginning. Rows are padded on the right,
    after everything that is read from them, so that no state has seen any padding. report: is told of pairs done.
    Raises `InputError` for an answer that is longer than the model's input.
    """
    inputs = [_input(pair, length) for pair in pairs]
    found = [Likelihood(0.0, True)] * len(pairs)
    for rows in _batches([len(each) for each in inputs], batch_size):
        tokens = _padded([inputs[row] for row in rows]).to(model.embedding.weight.device)
        hidden = model.encode(tokens, None, model.context_of(tokens)).hidden
        for place, row in enumerate(rows):
            end, answer = len(inputs[row]), pairs[row].answer
            found[row] = _likelihood(model, hidden[place, end - len(answer) : end], answer)
        report(len(rows))
    return found


def _input(pair: Pair, length: int) -> list[int]:
    """What is read: all but the last token, of which the newest are kept."""
    context, answer = pair
    if not context:
        raise InputError("context: has no token; give at least one (the token that begins a text)")
    if len(answer) > length:
        raise InputError(f"answer: has {len(answer)} tokens, more than the {length} that the model is given")
    return [*context, *answer][-(length + 1) :][:-1]


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows in batches, the longest first, which also meets the memory's limit at once."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for first in range(0, len(order), size):
        yield order[first : first + size]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def _likelihood(model: ModelLayer, hidden: Tensor, answer: Sequence[int]) -> Likelihood:
    targets = torch.tensor(answer, device=hidden.device)
    nats, greedy = 0.0, True
    for part, wanted in zip(torch.split(hidden, _ROWS), torch.split(targets, _ROWS), strict=True):
        logits = model.head(part, model.embedding.weight).float()  # n v
        greedy = greedy and bool((logits.argmax(-1) == wanted).all())
        nats += logits.log_softmax(-1).gather(1, wanted[:, None]).sum(dtype=torch.float64).item()
    return Likelihood(nats, greedy)
