"""A token for each character of a given alphabet: grey levels, letters, anything that is few."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from windtunnel.data.tokenizers.base import Ids, Tokenizer
from windtunnel.errors import InputError

ALPHABET_FILE = "alphabet.txt"


class CharacterTokenizer(Tokenizer):
    """Ids 0, 1, .. are the characters of the alphabet in their order, the last one is the end of text.

    Other characters are refused: this is for data that is made of these.
    """

    kind = "characters"

    def __init__(self, alphabet: str) -> None:
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise InputError(f"alphabet must hold each of its characters once, got {alphabet!r}")
        self.alphabet = alphabet
        self._ids = {character: index for index, character in enumerate(alphabet)}
        fingerprint = hashlib.sha256(f"windtunnel characters {alphabet}".encode()).hexdigest()
        super().__init__([*(character.encode() for character in alphabet), b""], len(alphabet), fingerprint)

    def encode_documents(self, texts: Sequence[str]) -> list[Ids]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Ids:
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise InputError(
                f"text holds {unknown[0]!r}, which is not in the alphabet {self.alphabet!r}; choose a text of these "
                "characters, or a tokenizer that holds all, such as bytes"
            )
        return np.array([self._ids[character] for character in text], dtype=np.int64)

    def files(self) -> dict[str, bytes]:
        return {ALPHABET_FILE: self.alphabet.encode()}

    @classmethod
    def from_files(cls, folder: Path) -> Self:
        return cls((folder / ALPHABET_FILE).read_bytes().decode())
