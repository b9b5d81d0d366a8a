"""Pieces of held-out documents of one length, and a model's nats on them."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from windtunnel.errors import InputError
from windtunnel.evaluation.loss import UNCOUNTED
from windtunnel.evaluation.subject import Subject, Text
from windtunnel.evaluation.work import Work
from windtunnel.root import ModelLayer

Ids = NDArray[np.int64]
Nats = NDArray[np.float64]
_BATCH_TOKENS = 8192


class Segments(NamedTuple):
    """Rows of length + 1 tokens, each inside one document: inputs and, one further, targets. document: of each row."""

    tokens: Ids  # n length+1
    document: Ids  # n

    @property
    def targets(self) -> Ids:
        """[n length]."""
        return self.tokens[:, 1:]


def segments(text: Text, length: int, most: int) -> Segments:
    """At most so many pieces of documents that have `length` tokens and more.

    Documents come in the order of their names' SHA-256, so that the choice does not depend on the order of files; the
    first piece of each, then the second, and so on. A document's first piece begins with its end_of_text.
    """
    places = _places(text, length)[:most]
    starts = np.array([start for _, start, _ in places], np.int64).reshape(-1, 1)
    tokens = np.asarray(text.split.tokens[starts + np.arange(length + 1)], np.int64)
    return Segments(tokens, np.array([document for _, _, document in places], np.int64))


def check_segments(subject: Subject, length: int, way_out: str) -> int:
    """How many pieces of this length there are; refuses a text that has none."""
    count = len(_places(subject.heldout, length))
    if not count:
        longest = int((np.diff(subject.heldout.split.offsets) - 1).max(initial=0))
        raise InputError(
            f"{subject.heldout.name}: no document has {length:,} tokens, the longest has {longest:,}; {way_out}"
        )
    return count


def _places(text: Text, length: int) -> list[tuple[int, int, int]]:
    """(place in its document, start, document), in order."""
    offsets = np.asarray(text.split.offsets, np.int64)
    pieces = (np.diff(offsets) - 1) // length
    able = np.flatnonzero(pieces)
    names = {int(index): hashlib.sha256(text.split.names[int(index)].encode()).digest() for index in able}
    order = sorted(names, key=lambda index: (names[index], index))
    found = [(piece, int(offsets[i]) + piece * length, i) for i in order for piece in range(int(pieces[i]))]
    return sorted(found, key=lambda place: place[0])


@torch.no_grad()
def nats_of(model: ModelLayer, inputs: Ids, targets: Ids, work: Work) -> Nats:
    """Nats of each target [n t], 0 where it is -1; in float32 or wider, rows in batches."""
    device = next(model.parameters()).device
    rows = max(1, _BATCH_TOKENS // max(inputs.shape[1], 1))
    found: list[Any] = []
    for first in range(0, len(inputs), rows):
        batch = (torch.from_numpy(np.ascontiguousarray(part[first : first + rows])) for part in (inputs, targets))
        given, wanted = (part.to(device) for part in batch)
        with torch.autocast(device.type, enabled=False):
            found.append(model.token_losses(given, wanted).cpu().double().numpy())
        work.read(given.numel())
    return np.concatenate(found) if found else np.zeros(targets.shape)


def scored(text: Text, targets: Ids) -> Ids:
    """Targets [..] with -1 for specials, which have no bytes."""
    return np.where(text.token_bytes[targets] > 0, targets, UNCOUNTED)


def by_document(values: NDArray[Any], document: Ids) -> Nats:
    """Sums of rows [n ..] over documents, in the order of their numbers; [documents ..] float64."""
    _, place = np.unique(document, return_inverse=True)
    sums = np.zeros((place.max(initial=-1) + 1, *values.shape[1:]))
    np.add.at(sums, place, values)
    return sums
