"""Token shards: what training reads, memory-mapped from a cache whose folders are named by their content.

A folder is built under a temporary name and renamed when all of it is on the disk, so that a second process, a kill or
a full disk never leaves a part of one. Every file's SHA-256 is kept in `meta.json` and verified when it is opened.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from windtunnel.data.building import FORMAT, META_FILE, TOKENIZER_FOLDER, Progress, build
from windtunnel.data.corpus import Corpus
from windtunnel.data.files import default_cache, file_hash
from windtunnel.data.shard import Split, open_split
from windtunnel.data.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer, choose_vocabulary, load_tokenizer
from windtunnel.errors import InputError

__all__ = ["Dataset", "Split", "TokenizerChoice", "default_cache", "open_dataset", "prepare"]

TokenizerChoice: TypeAlias = Tokenizer | str | int | Path | None


@dataclass(frozen=True)
class Dataset:
    """Training and held-out tokens with their tokenizer. `record` holds the hashes and figures for `run.json`."""

    folder: Path
    train: Split
    heldout: Split
    record: dict[str, Any]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that was saved with the tokens."""
        return load_tokenizer(self.folder / TOKENIZER_FOLDER)


def prepare(
    corpus: Corpus,
    tokenizer: TokenizerChoice = None,
    context: int = 128,
    heldout_tokens: int = 65_536,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The corpus as token shards, built once and then opened from the cache.

    `tokenizer` is None (chosen from the corpus's size), "bytes", a vocabulary size to train SentencePiece for, a path
    that `load_tokenizer` reads, or a Tokenizer. Held out are about `heldout_tokens` tokens at five bytes each, at most
    a tenth of the corpus. Raises InputError for a corpus too small for `context`, a vocabulary that it cannot fill, a
    tokenizer that changes its text, and a damaged shard; WorkError where the disk is full.
    """
    chosen = _choose(tokenizer, corpus)
    root = cache or default_cache()
    folder = root / _key(corpus, chosen, heldout_tokens)
    if not folder.exists():
        build(corpus, chosen, heldout_tokens, folder, progress or (lambda stage, share: None))
    dataset = open_dataset(folder)
    stream = int(dataset.train.tokens.size)
    if stream < 2 * context:
        raise InputError(
            f"{corpus.name} gives {stream} training tokens; context {context} needs at least {2 * context}: "
            "name more data or a shorter context"
        )
    return dataset


def open_dataset(folder: Path | str, verify: bool = True) -> Dataset:
    """Open shards. Sizes are always checked, SHA-256 unless `verify` is False (a worker of a checked study)."""
    folder = Path(folder)
    meta = _read_meta(folder)
    for name, file in meta["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(_damaged(path, folder, "it is missing"))
        if path.stat().st_size != file["bytes"]:
            raise InputError(_damaged(path, folder, f"{path.stat().st_size} bytes instead of {file['bytes']}"))
        if verify and file_hash(path) != file["sha256"]:
            raise InputError(_damaged(path, folder, "its SHA-256 is not the recorded one"))
    record = meta["record"]
    end_of_text, dtype = meta["end_of_text"], record["dtype"]
    train = open_split(folder, "train", dtype, end_of_text, meta.get("parts", ()))
    heldout = open_split(folder, "heldout", dtype, end_of_text, ())
    return Dataset(folder, train, heldout, record)


def _choose(tokenizer: TokenizerChoice, corpus: Corpus) -> Tokenizer | int | None:
    """A tokenizer, a vocabulary to train, or None for a vocabulary that the corpus's size suggests."""
    if tokenizer is None and corpus.alphabet is not None:
        return CharacterTokenizer(corpus.alphabet)
    if isinstance(tokenizer, Tokenizer | int):
        return tokenizer
    if tokenizer is None:
        return None if choose_vocabulary(corpus.bytes) else ByteTokenizer()
    if tokenizer == "bytes":
        return ByteTokenizer()
    return load_tokenizer(tokenizer)


def _key(corpus: Corpus, chosen: Tokenizer | int | None, heldout_tokens: int) -> str:
    tokens = chosen.fingerprint if isinstance(chosen, Tokenizer) else [chosen, version("sentencepiece")]
    several = ["set by set"] if len(corpus.survey.sets) > 1 else []
    content = json.dumps([FORMAT, corpus.fingerprint, tokens, heldout_tokens, *several])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / META_FILE
    try:
        meta = json.loads(path.read_bytes())
        content: dict[str, Any] = meta["content"]
        body = json.dumps(content, sort_keys=True)
        whole = meta["format"] == FORMAT and meta["sha256"] == hashlib.sha256(body.encode()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(_damaged(path, folder, "it is missing or unreadable")) from error
    if not whole:
        raise InputError(_damaged(path, folder, "its content is not what was written"))
    return content


def _damaged(path: Path, folder: Path, why: str) -> str:
    return f"shard {path} is damaged ({why}); delete the folder {folder} and it is built again"
