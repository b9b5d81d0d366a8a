"""Text to train on that asks as the evaluations do: some documents of a corpus, with needles put into their pieces.

A model of few parameters finds no needle in a text unless it has learned what is asked. Pieces of a chosen document
become documents of their own, so that no text is there twice; names are those of the training split, which no
evaluation asks for. They are a set of their own, so that their loss is told apart and a mixture can weigh them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from windtunnel.data.documents import Document
from windtunnel.errors import InputError
from windtunnel.evaluation.retrieval.drawing import Drawing
from windtunnel.evaluation.retrieval.needle import passkey, several
from windtunnel.evaluation.retrieval.noise import NOISE
from windtunnel.evaluation.retrieval.prompts import Prompt

SET = "needles"
_TASK = "training documents"
_MULTIPLE = ((2, 2), (4, 2))  # needles and asked, of items with several


class Planting(NamedTuple):
    """share: of the documents that are chosen, by a hash of their text. shortest, longest: characters of a piece's own.

    seed: of the names, numbers and places.
    """

    share: float = 0.05
    shortest: int = 100
    longest: int = 800
    seed: int = 0

    def check(self) -> None:
        """Refuse what gives no pieces."""
        if not 0 < self.share <= 1:
            raise InputError(f"share: {self.share:g} given; above 0 and at most 1")
        if not 1 <= self.shortest <= self.longest:
            raise InputError(f"shortest and longest: {self.shortest} and {self.longest} given; 1 or more, not falling")

    def chooses(self, text: str) -> bool:
        """Whether a document is one of the share."""
        digest = hashlib.sha256(text.encode()).digest()
        return bool(text.strip()) and int.from_bytes(digest[-8:], "little") < self.share * 2**64


def planted(documents: Iterable[Document], planting: Planting) -> Iterator[Document]:
    """The documents, of which a share is cut into pieces that hold needles and end with a question and its answer."""
    planting.check()
    number = 0
    for document in documents:
        if not planting.chooses(document.text):
            yield document
            continue
        rest = document.text
        while rest.strip():
            drawing = Drawing(_TASK, "train", planting.seed, number)
            size = planting.shortest + drawing.below(planting.longest - planting.shortest + 1)
            piece, rest = rest[:size], rest[size:]
            yield Document(f"{document.name}, {SET} {number}", _item(piece, drawing).text, SET)
            number += 1


def _item(piece: str, drawing: Drawing) -> Prompt:
    """A question about a piece: one needle mostly, several now and then; now and then a pass key, noise for a piece."""
    kind, depth = drawing.below(4), drawing.share()
    if kind == 0:
        return passkey((NOISE * (len(piece) // len(NOISE) + 1))[: len(piece)], drawing, depth)
    count, asked = _MULTIPLE[drawing.below(len(_MULTIPLE))] if kind == 1 else (1, 1)
    return several(piece, drawing, count, asked, depth)
