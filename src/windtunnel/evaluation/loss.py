"""Loss on held-out documents: nats by document and by position, bits per byte (protocol section 8)."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from windtunnel.errors import InputError

UNCOUNTED = -1


class Documents(Protocol):
    """Held-out documents as one stream: each begins with end_of_text at its offset (`windtunnel.data.shards.Split`)."""

    @property
    def tokens(self) -> NDArray[np.unsignedinteger]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def bytes(self) -> NDArray[np.int64]: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def sets(self) -> Sequence[str | None]: ...


class DocumentLosses(NamedTuple):
    """Sums by document [n] and by position bucket [k]; float64 nats.

    documents:     index of each scored document in its split.
    bucket_nats, bucket_tokens: bucket k holds targets that have 2^k to 2^(k+1) - 1 tokens before them in their window.
    """

    documents: NDArray[np.int64]
    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]
    bucket_nats: NDArray[np.float64]
    bucket_tokens: NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Mean nats per token."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """Total nats / (ln 2 x UTF-8 bytes of the scored text)."""
        return float(self.nats.sum() / (math.log(2) * self.bytes.sum()))

    def figures(self) -> dict[str, Any]:
        """What a run's result says of them."""
        return {
            "loss": self.loss,
            "bits_per_byte": self.bits_per_byte,
            "evaluated_tokens": int(self.tokens.sum()),
        }

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """The fields by name, as they are stored."""
        return self._asdict()


class _Windows(NamedTuple):
    """Disjoint windows of T targets: document [w] (a row of the result), start in the stream [w], targets [w]."""

    document: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]


def evaluate_loss(
    model: nn.Module,
    split: Documents,
    token_bytes: NDArray[np.int64],
    context: int,
    batch_size: int = 16,
    max_tokens: int | None = None,
) -> DocumentLosses:
    """Score each held-out document in disjoint windows of `context`, the first of which begins with end_of_text.

    A window's first input is the last target of the one before, so every token is scored once. Tokens without bytes
    (specials) contribute neither nats nor bytes. Runs in float32 whatever the training precision, in evaluation mode,
    without gradients. With `max_tokens`, whole documents are taken in the order of their names' SHA-256 and the last
    one is cut, so the choice depends neither on the model nor on the order of files.
    """
    chosen, counts = choose(split, max_tokens)
    windows = _cut(split.offsets[chosen], counts, context)
    nats, tokens = np.zeros(len(chosen)), np.zeros(len(chosen), np.int64)
    byte_sums = np.zeros(len(chosen), np.int64)
    position_nats, position_tokens = np.zeros(context), np.zeros(context, np.int64)
    for rows, inputs, targets in _batches(split, windows, token_bytes, context, batch_size):
        losses = _token_losses(model, inputs, targets)  # w t
        counted = targets != UNCOUNTED
        document = windows.document[rows]
        np.add.at(nats, document, losses.sum(1))
        np.add.at(tokens, document, counted.sum(1))
        np.add.at(byte_sums, document, np.where(counted, token_bytes[targets], 0).sum(1))
        position_nats += losses.sum(0)
        position_tokens += counted.sum(0)
    _check_bytes(split, chosen, counts, byte_sums)
    if not tokens.sum():
        raise InputError("held-out documents: none has a token to score; hold out more text")
    edges = [2**power - 1 for power in range(context.bit_length())]  # index j has j + 1 tokens before its target
    bucket_nats, bucket_tokens = (np.add.reduceat(values, edges) for values in (position_nats, position_tokens))
    return DocumentLosses(chosen, nats, tokens, byte_sums, bucket_nats, bucket_tokens)


def constant_losses(
    split: Documents, token_bytes: NDArray[np.int64], context: int, max_tokens: int | None, loss: float
) -> DocumentLosses:
    """What `evaluate_loss` would return for a model whose loss is `loss` for every token."""
    constant = _Constant(loss)
    return evaluate_loss(constant, split, token_bytes, context, batch_size=64, max_tokens=max_tokens)


def by_set(losses: DocumentLosses, sets: Sequence[str | None]) -> dict[str, DocumentLosses]:
    """The documents of each set that has tokens to score, by name; "other" is what belongs to none."""
    names = np.array([sets[index] or "other" for index in losses.documents.tolist()])
    found = {}
    for name in sorted(set(names.tolist())):
        here = names == name
        part = losses._replace(
            documents=losses.documents[here],
            nats=losses.nats[here],
            tokens=losses.tokens[here],
            bytes=losses.bytes[here],
        )
        if part.tokens.sum():
            found[name] = part
    return found


def losses_by_set(losses: DocumentLosses, sets: Sequence[str | None]) -> dict[str, dict[str, float]]:
    """Nats per token, bits per byte and tokens of each set of documents."""
    return {
        name: {"loss": part.loss, "bits_per_byte": part.bits_per_byte, "tokens": int(part.tokens.sum())}
        for name, part in by_set(losses, sets).items()
    }


class _Constant(nn.Module):
    def __init__(self, loss: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(loss))

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return torch.where(targets == UNCOUNTED, 0.0, self.value)


def choose(split: Documents, max_tokens: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents to score (indices, in their order), and how many targets of each."""
    lengths = _lengths(split)
    if max_tokens is None or lengths.sum() <= max_tokens:
        return np.arange(len(lengths), dtype=np.int64), lengths
    order = sorted(range(len(lengths)), key=lambda index: (hashlib.sha256(split.names[index].encode()).digest(), index))
    before = np.cumsum(lengths[order]) - lengths[order]
    taken = np.minimum(lengths[order], max_tokens - before)
    chosen = np.asarray(order, np.int64)[taken > 0]
    by_index = np.argsort(chosen)
    return chosen[by_index], taken[taken > 0][by_index]


def _lengths(split: Documents) -> NDArray[np.int64]:
    """Targets of each document: all its tokens but the end_of_text that precedes it."""
    offsets = np.asarray(split.offsets, np.int64)
    lengths: NDArray[np.int64] = offsets[1:] - offsets[:-1] - 1
    return lengths


def _cut(starts: NDArray[np.int64], counts: NDArray[np.int64], context: int) -> _Windows:
    parts = -(-counts // context)  # windows of each document
    document = np.repeat(np.arange(len(counts)), parts)
    within = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    length = np.minimum(context, counts[document] - within * context)
    return _Windows(document, np.asarray(starts, np.int64)[document] + within * context, length)


def _batches(
    split: Documents, windows: _Windows, token_bytes: NDArray[np.int64], context: int, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of `windows`, inputs [w t], targets [w t]; short windows are filled at their end, where it is harmless."""
    stream = split.tokens
    columns = np.arange(context + 1)
    for first in range(0, len(windows.start), batch_size):
        rows = np.arange(first, min(first + batch_size, len(windows.start)))
        inside = columns <= windows.length[rows, None]
        places = np.where(inside, windows.start[rows, None] + columns, windows.start[rows, None])
        ids = np.asarray(stream[places], np.int64)  # w t+1
        targets = ids[:, 1:]
        counted = inside[:, 1:] & (token_bytes[targets] > 0)
        yield rows, ids[:, :-1], np.where(counted, targets, UNCOUNTED)


@torch.no_grad()
def _token_losses(model: nn.Module, inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            losses: Tensor = model.token_losses(  # type: ignore[operator]
                torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
            )
    finally:
        model.train(training)
    return losses.cpu().double().numpy()


def _check_bytes(
    split: Documents, chosen: NDArray[np.int64], counts: NDArray[np.int64], byte_sums: NDArray[np.int64]
) -> None:
    lengths = _lengths(split)
    for row, index in enumerate(chosen):
        whole = counts[row] == lengths[index]
        assert not whole or byte_sums[row] == split.bytes[index], (
            f"{split.names[index]}: its tokens spell {byte_sums[row]} bytes, the document has {split.bytes[index]}"
        )
