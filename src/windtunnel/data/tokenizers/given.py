"""Tokenizers made elsewhere: a `tokenizer.json`, GPT-2's `vocab.json` and `merges.txt`, SentencePiece models.

What a token stands for is read off the file: byte-level alphabets (GPT-2), `<0xNN>` pieces and the space mark U+2581
(Llama), or plain text. A tokenizer that changes the text is found out when the data is prepared.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from windtunnel.data.tokenizers.base import Ids, Tokenizer
from windtunnel.data.tokenizers.trained import open_sentencepiece, piece_bytes
from windtunnel.errors import InputError

JSON_FILE, PIECES_FILE = "tokenizer.json", "tokenizer.model"
END_OF_TEXT_NAMES = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<EOS_TOKEN>",
    "<s>",
    "<bos>",
    "[SEP]",
)


class JsonTokenizer(Tokenizer):
    """A `tokenizer.json`, run by the package `tokenizers`; truncation, padding and added special tokens are off.

    The end of text is the first special token that the file has of the usual names; where it has none, one id is
    added after its own.
    """

    kind = "json"

    def __init__(self, source: str, place: str = JSON_FILE) -> None:
        import tokenizers

        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(source)
        except Exception as error:  # the package raises nothing narrower
            raise InputError(f"{place} is not a tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._source = source
        pieces, end_of_text = _pieces(self._tokenizer, json.loads(source))
        super().__init__(pieces, end_of_text, hashlib.sha256(source.encode("utf-8")).hexdigest())
        self.prefix = prefix_of(self)
        self.begins = _begins(self._tokenizer)

    @classmethod
    def from_merges(cls, vocabulary: Path, merges: Path) -> Self:
        """GPT-2's files: byte-level BPE without a leading space."""
        import tokenizers

        try:
            byte_level = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocabulary), str(merges)))
        except Exception as error:  # the package raises nothing narrower
            raise InputError(f"{vocabulary} and {merges} are not a BPE vocabulary: {error}") from error
        byte_level.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        byte_level.decoder = tokenizers.decoders.ByteLevel()
        byte_level.add_special_tokens([n for n in END_OF_TEXT_NAMES if byte_level.token_to_id(n) is not None])
        return cls(byte_level.to_str(), str(vocabulary))

    def encode_documents(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int64) for one in encoded]

    def files(self) -> dict[str, bytes]:
        return {JSON_FILE: self._source.encode("utf-8")}

    @classmethod
    def from_files(cls, folder: Path) -> Self:
        path = folder / JSON_FILE
        try:
            return cls(path.read_bytes().decode("utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text at byte {error.start}") from error


class GivenSentencePiece(Tokenizer):
    """A SentencePiece model made elsewhere (`tokenizer.model`), which may put a space before every text.

    The end of text is the piece that the model names so; where it names none, one id is added after its own.
    """

    kind = "sentencepiece-given"

    def __init__(self, model: bytes, place: str = PIECES_FILE) -> None:
        self.processor, self._model = open_sentencepiece(model, place), model
        pieces = [piece_bytes(self.processor, index) for index in range(self.processor.vocab_size())]
        end_of_text = self.processor.eos_id()
        if end_of_text < 0:
            pieces, end_of_text = [*pieces, b""], len(pieces)
        super().__init__(pieces, end_of_text, hashlib.sha256(model).hexdigest())
        self.prefix = prefix_of(self)
        begin = self.processor.bos_id()
        self.begins = begin if begin >= 0 else None

    def encode_documents(self, texts: Sequence[str]) -> list[Ids]:
        return [np.array(ids, dtype=np.int64) for ids in self.processor.encode(list(texts), out_type=int)]

    def files(self) -> dict[str, bytes]:
        return {PIECES_FILE: self._model}

    @classmethod
    def from_files(cls, folder: Path) -> Self:
        return cls((folder / PIECES_FILE).read_bytes(), str(folder / PIECES_FILE))


def prefix_of(tokenizer: Tokenizer) -> bytes:
    """The space that some put before every text, as their own ids tell."""
    return b" " if tokenizer.decode_bytes(tokenizer.encode_documents(["a"])[0]) == b" a" else b""


def _begins(tokenizer: Any) -> int | None:
    """The id that the file's own template puts before a text."""
    bare, whole = (tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
    found = next((index for index in range(len(whole)) if whole[index : index + len(bare)] == bare), 0)
    return int(whole[0]) if found == 1 else None


def _pieces(tokenizer: Any, file: dict[str, Any]) -> tuple[list[bytes], int]:
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    to_bytes = _alphabet(file)
    pieces = [b""] * (1 + max(vocabulary.values(), default=-1))
    for token, index in vocabulary.items():
        if index not in added:
            pieces[index] = to_bytes(token)
        elif not added[index].special:
            pieces[index] = added[index].content.encode("utf-8")
    special = {token.content: index for index, token in added.items() if token.special}
    for name in END_OF_TEXT_NAMES:
        if name in special:
            return pieces, special[name]
    return [*pieces, b""], len(pieces)


def _alphabet(file: dict[str, Any]) -> Any:
    """How the file spells bytes, by the names of its decoder's parts."""
    decoder = json.dumps([file.get("decoder"), file.get("pre_tokenizer")])
    if '"ByteLevel"' in decoder:
        table = byte_level_alphabet()
        return lambda token: b"".join(bytes([table[c]]) if c in table else c.encode("utf-8") for c in token)
    if '"Metaspace"' in decoder or '"ByteFallback"' in decoder:
        return _sentencepiece_bytes
    return lambda token: token.encode("utf-8")


def _sentencepiece_bytes(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode("utf-8")


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 characters stand for themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
