"""SentencePiece trained on the corpus, with the properties of PaLM's vocabulary (arXiv 2204.02311, section 2.2).

Whitespace is kept, every digit is its own piece, what no piece covers falls back to UTF-8 bytes, and nothing is
normalised. The paper does not name the algorithm: BPE is used, since unigram takes some thirty times as long to train
on source text and gives more tokens. SentencePiece writes a space as U+2581 inside its pieces, so a literal U+2581 is
encoded by its three byte pieces, and decoding uses a table of bytes.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from windtunnel.data.tokenizers.base import Ids, Tokenizer
from windtunnel.data.tokenizers.sample import Sample, sampled
from windtunnel.errors import InputError

MODEL_FILE = "sentencepiece.model"
END_OF_TEXT = "<|endoftext|>"
SPACE_MARK = "\u2581"
SAMPLE_BYTES = 1 << 22
SAMPLE_BYTES_PER_PIECE = 1 << 12
LARGEST_SAMPLE = 1 << 28
_RESERVED = 258  # the unknown token, the end of text, and one piece for each byte
_SMALLEST_VOCABULARY = 288
_LINE_CHARACTERS = 1000


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model; its end of text is a control piece, which no text encodes to."""

    kind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        self.processor, self._model = open_sentencepiece(model, "this"), model
        pieces = [piece_bytes(self.processor, index) for index in range(self.processor.vocab_size())]
        super().__init__(pieces, self.processor.piece_to_id(END_OF_TEXT), hashlib.sha256(model).hexdigest())
        self._mark = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]

    def encode_documents(self, texts: Sequence[str]) -> list[Ids]:
        parts = [text.split(SPACE_MARK) for text in texts]
        encoded = iter(self.processor.encode([piece for part in parts for piece in part], out_type=int))
        return [self._join([next(encoded) for _ in part]) for part in parts]

    def _join(self, parts: list[list[int]]) -> Ids:
        ids = parts[0]
        for part in parts[1:]:
            ids = [*ids, *self._mark, *part]
        return np.array(ids, dtype=np.int64)

    def files(self) -> dict[str, bytes]:
        return {MODEL_FILE: self._model}

    @classmethod
    def from_files(cls, folder: Path) -> Self:
        return cls((folder / MODEL_FILE).read_bytes())


def train_sentencepiece(documents: Iterable[str], vocab: int) -> SentencePieceTokenizer:
    """Train a vocabulary of exactly `vocab` ids; the same documents give the same model, byte for byte.

    documents: read several times, in a stream. A corpus over 4 MB, or 4 KB for each id up to 256 MB, is sampled by a
    hash of each document. Raises InputError where the corpus cannot fill the vocabulary, with one that it can fill.
    """
    if vocab < _SMALLEST_VOCABULARY:
        raise InputError(
            f"vocab must be at least {_SMALLEST_VOCABULARY} for SentencePiece (256 are bytes), not {vocab}"
        )
    limit = max(SAMPLE_BYTES, min(vocab * SAMPLE_BYTES_PER_PIECE, LARGEST_SAMPLE))
    with sampled(documents, limit) as sample:
        try:
            return SentencePieceTokenizer(_train(sample, vocab))
        except RuntimeError as error:
            raise InputError(_why_not(str(error), sample, vocab)) from error


def _train(sample: Sample, vocab: int) -> bytes:
    """The model; RuntimeError where there is none of this size."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_training_lines(sample, vocab),
        model_writer=model,
        vocab_size=vocab,
        model_type="bpe",
        split_digits=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
        eos_piece=END_OF_TEXT,
        minloglevel=2,
    )
    return model.getvalue()


def _why_not(message: str, sample: Sample, vocab: int) -> str:
    if "sentences_.empty()" in message:
        return (
            f"vocab {vocab} cannot be filled: the corpus holds no text to learn pieces from; use the tokenizer 'bytes'"
        )
    possible = _possible(message, sample)
    if possible is None:
        return f"vocab {vocab} cannot be trained: {message}"
    if possible < _SMALLEST_VOCABULARY:
        return (
            f"vocab {vocab} is more than this corpus can fill, and so is every other that SentencePiece can train "
            f"(at least {_SMALLEST_VOCABULARY}); use the tokenizer 'bytes', or name more data"
        )
    return f"vocab {vocab} is more than this corpus can fill; the largest possible is {possible}"


def _possible(message: str, sample: Sample) -> int | None:
    """A size that the corpus does fill: smaller vocabularies spell out rarer characters, so each answer is tried."""
    while found := re.search(r"value <= (\d+)", message):
        possible = int(found.group(1))
        if possible < _SMALLEST_VOCABULARY:
            return possible
        try:
            _train(sample, possible)
        except RuntimeError as error:
            message = str(error)
        else:
            return possible
    return None


def _training_lines(sample: Sample, vocab: int) -> Iterator[str]:
    """Lines of the sample; characters too rare for a piece of their own end a line, as they end a piece."""
    counts: Counter[str] = Counter()
    for text in sample:
        counts.update(text)
    kept = {
        char for char, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: (vocab - _RESERVED) // 2]
    }
    breaks = {ord(char): "\n" for char in counts if char not in kept or char in ("\0", SPACE_MARK)}
    for text in sample:
        for line in text.translate(breaks).split("\n"):
            for start in range(0, len(line), _LINE_CHARACTERS):
                yield line[start : start + _LINE_CHARACTERS]


def open_sentencepiece(model: bytes, place: str) -> Any:
    """The processor of a model; `place` names it where it is none."""
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, OSError) as error:
        raise InputError(f"{place} is not a SentencePiece model: {error}") from error


def piece_bytes(processor: Any, index: int) -> bytes:
    """What a piece stands for; control pieces and the unknown one stand for nothing."""
    piece = processor.id_to_piece(index)
    if processor.is_byte(index):
        return bytes([int(piece[3:5], 16)])
    if processor.is_control(index) or processor.is_unknown(index):
        return b""
    return bytes(piece.replace(SPACE_MARK, " ").encode("utf-8"))
