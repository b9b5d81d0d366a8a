"""Tokenizers: bytes, SentencePiece trained on the corpus, and any given `tokenizer.json`.

`load_tokenizer` reads a folder that `Tokenizer.save` wrote, or files made elsewhere; nothing in them is executed.
"""

import json
from pathlib import Path

from windtunnel.data.tokenizers.base import RECORD_FILE, ByteTokenizer, Ids, Tokenizer
from windtunnel.data.tokenizers.characters import CharacterTokenizer
from windtunnel.data.tokenizers.given import JSON_FILE, PIECES_FILE, GivenSentencePiece, JsonTokenizer
from windtunnel.data.tokenizers.trained import SentencePieceTokenizer, train_sentencepiece
from windtunnel.errors import InputError

__all__ = [
    "ByteTokenizer",
    "CharacterTokenizer",
    "GivenSentencePiece",
    "Ids",
    "JsonTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "choose_vocabulary",
    "load_tokenizer",
    "train_sentencepiece",
]

_KINDS: dict[str, type[Tokenizer]] = {
    kind.kind: kind
    for kind in (ByteTokenizer, CharacterTokenizer, SentencePieceTokenizer, JsonTokenizer, GivenSentencePiece)
}


def choose_vocabulary(corpus_bytes: int) -> int | None:
    """The vocabulary for a corpus: bytes (None) below 1 MB, 1,024 to 64 MB, 8,192 to 1 GB, 32,768 beyond.

    A larger table needs more text to be learned, and at a small width it would be most of the model.
    """
    for limit, vocab in ((1_000_000, None), (64_000_000, 1024), (1_000_000_000, 8192)):
        if corpus_bytes < limit:
            return vocab
    return 32_768


def load_tokenizer(path: Path | str) -> Tokenizer:
    """A saved tokenizer's folder, a `tokenizer.json` or `tokenizer.model`, or a folder with one of these.

    Or one with `vocab.json` and `merges.txt`.
    """
    path = Path(path)
    if (path / RECORD_FILE).is_file():
        return _load_saved(path)
    if path.is_file():
        return _load_file(path)
    if (path / JSON_FILE).is_file():
        return JsonTokenizer.from_files(path)
    if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        return JsonTokenizer.from_merges(path / "vocab.json", path / "merges.txt")
    if (path / PIECES_FILE).is_file():
        return GivenSentencePiece.from_files(path)
    what = (
        "holds neither tokenizer.json nor tokenizer.model nor vocab.json and merges.txt"
        if path.is_dir()
        else "does not exist"
    )
    raise InputError(f"tokenizer {path} {what}")


def _load_file(path: Path) -> Tokenizer:
    if path.suffix == ".model":
        return GivenSentencePiece(path.read_bytes(), str(path))
    return JsonTokenizer(_read_text(path), str(path))


def _load_saved(folder: Path) -> Tokenizer:
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_bytes())
        kind = _KINDS[record["kind"]]
        tokenizer = kind.from_files(folder).end_at(record.get("ends", ()))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"the tokenizer saved in {folder} is damaged: {error}") from error
    if tokenizer.fingerprint != record.get("fingerprint"):
        raise InputError(f"the tokenizer saved in {folder} is damaged: its fingerprint is not the one in {path.name}")
    return tokenizer


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a tokenizer.json: not UTF-8 at byte {error.start}") from error
