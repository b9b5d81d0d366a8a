"""The division of a corpus into training and held-out text, disjoint by document."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt

from windtunnel.data.corpus import Corpus, Digests, Document, Survey
from windtunnel.data.overlap import Overlap, measure_overlap
from windtunnel.errors import InputError

LARGEST_HELDOUT_SHARE = 0.1
FEWEST_HELDOUT_DOCUMENTS = 16
LARGEST_SHARED = 0.5
_LEAST_OF_A_SET = 0.25  # of an equal share of the held-out text

Indices = npt.NDArray[np.int64]


class Selected:
    """Some of a corpus's documents, in its order, read anew each time."""

    def __init__(self, documents: Iterable[Document], kept: npt.NDArray[np.bool_]) -> None:
        self._documents, self._kept = documents, kept

    def __len__(self) -> int:
        return int(self._kept.sum())

    def __iter__(self) -> Iterator[Document]:
        return compress(self._documents, self._kept)


class Texts:
    """The texts of documents, without their names."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = documents

    def __iter__(self) -> Iterator[str]:
        return (document.text for document in self._documents)


@dataclass(frozen=True)
class Division:
    """Training and held-out documents, disjoint by document, and what is known about their independence."""

    train: Selected
    heldout: list[Document]
    duplicates_dropped: int
    near_duplicates_dropped: int
    overlap: Overlap


def split(corpus: Corpus, heldout_bytes: int) -> Division:
    """Drop exact duplicates, then hold out documents in the order of a hash of name and text.

    Documents are taken until `heldout_bytes` are held out, never more than a tenth of the corpus. Long ones, over a
    sixteenth of the request, are passed over while shorter ones suffice: a score over few documents is a poor sample.
    The choice depends on neither tokenizer nor seed. Held-out documents stay in the order of their hashes, so that
    the first so many are a sample too. One that shares more than half of its runs of 13 words with training is left
    out of both (unless most are such), for it would measure memory.

    Of several sets each gives its share of the held-out text, small ones at least a quarter of an equal share.
    """
    survey = corpus.survey
    first = _first_of_each(survey.texts)
    if first.sum() < 2:
        raise InputError(f"{corpus.name} holds one distinct document; holding one out needs at least two")
    chosen = _choose(survey, first, heldout_bytes)
    kept = first.copy()
    kept[chosen] = False
    train = Selected(corpus.documents, kept)
    heldout = _gather(corpus.documents, chosen)
    overlap = measure_overlap(Texts(train), (document.text for document in heldout))
    new = [i for i in range(len(heldout)) if overlap.shared[i] <= LARGEST_SHARED * overlap.total[i]]
    taken = new if 2 * len(new) >= len(heldout) else list(range(len(heldout)))
    return Division(
        train=train,
        heldout=[heldout[i] for i in taken],
        duplicates_dropped=len(first) - int(first.sum()),
        near_duplicates_dropped=len(heldout) - len(taken),
        overlap=overlap.only(taken),
    )


def _first_of_each(texts: Digests) -> npt.NDArray[np.bool_]:
    """Which documents are the first of their text."""
    order = np.lexsort((texts[:, 1], texts[:, 0]))  # stable: equal texts stay in the corpus's order
    same = (texts[order[1:]] == texts[order[:-1]]).all(axis=1)
    first = np.ones(len(texts), dtype=bool)
    first[order[1:][same]] = False
    return first


def _choose(survey: Survey, first: npt.NDArray[np.bool_], wanted: int) -> Indices:
    """Which documents to hold out, in the order of their hashes."""
    order = np.lexsort((survey.orders[:, 1], survey.orders[:, 0]))
    order = order[first[order]]
    if len(survey.sets) == 1:
        return _hold_out(order, survey.sizes, wanted, int(LARGEST_HELDOUT_SHARE * survey.sizes.sum()))
    chosen: list[Indices] = []
    for code in range(len(survey.sets)):
        here = order[survey.codes[order] == code]
        size = int(survey.sizes[survey.codes == code].sum())
        share = max(size / survey.sizes.sum(), _LEAST_OF_A_SET / len(survey.sets))
        if len(here) > 1:
            chosen.append(_hold_out(here, survey.sizes, int(share * wanted), int(LARGEST_HELDOUT_SHARE * size)))
    if not chosen:
        return order[:1]
    held = np.zeros(len(first), dtype=bool)
    held[np.concatenate(chosen)] = True
    return order[held[order]]


def _hold_out(order: Indices, sizes: npt.NDArray[np.int64], wanted: int, largest: int) -> Indices:
    """Documents of `order` to hold out; the smallest one where none fits."""
    wanted = min(wanted, largest)
    chosen: set[int] = set()
    total = 0
    for limit in (wanted // FEWEST_HELDOUT_DOCUMENTS, largest):
        for index in order.tolist():
            if total >= wanted:
                break
            if index not in chosen and sizes[index] <= min(limit, largest - total):
                chosen.add(index)
                total += int(sizes[index])
    if not chosen:
        return order[[int(np.argmin(sizes[order]))]]
    return order[np.isin(order, list(chosen))]


def _gather(documents: Iterable[Document], chosen: Indices) -> list[Document]:
    """Some documents, in the order asked for."""
    wanted = {index: place for place, index in enumerate(chosen.tolist())}
    found: list[Document | None] = [None] * len(wanted)
    for index, document in enumerate(documents):
        if index in wanted:
            found[wanted[index]] = document
    return [document for document in found if document is not None]
