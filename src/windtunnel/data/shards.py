"""Token shards: what training reads, memory-mapped from a cache whose folders are named by their content.

A folder is built under a temporary name and renamed when all of it is on the disk, so that a second process, a kill or
a full disk never leaves a part of one. Every file's SHA-256 is kept in `meta.json` and verified when it is opened.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from windtunnel.data.building import FORMAT, META_FILE, TOKENIZER_FOLDER, Progress, build
from windtunnel.data.corpus import Corpus
from windtunnel.data.files import file_hash
from windtunnel.data.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer, choose_vocabulary, load_tokenizer
from windtunnel.errors import InputError

TokenizerChoice: TypeAlias = Tokenizer | str | int | Path | None


@dataclass(frozen=True)
class Split:
    """One token stream: each document's tokens, preceded by `end_of_text`.

    `offsets[i]` is where document i's end_of_text stands, `offsets[n]` the length of the stream; `bytes[i]` is its
    UTF-8 length.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]  # [offsets[n]] uint16 or uint32, memory-mapped
    offsets: npt.NDArray[np.int64]  # n + 1
    bytes: npt.NDArray[np.int64]  # n
    names: list[str]
    sets: list[str | None]
    end_of_text: int

    def document(self, index: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Document `index` with its leading end_of_text."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


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


def default_cache() -> Path:
    """WINDTUNNEL_CACHE if set, otherwise the platform's folder for caches."""
    named = os.environ.get("WINDTUNNEL_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "windtunnel" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "windtunnel"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windtunnel"


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
    train, heldout = (_open_split(folder, name, record["dtype"], meta["end_of_text"]) for name in ("train", "heldout"))
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
    content = json.dumps([FORMAT, corpus.fingerprint, tokens, heldout_tokens])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _open_split(folder: Path, name: str, dtype: str, end_of_text: int) -> Split:
    documents = np.load(folder / f"{name}-documents.npy", allow_pickle=False)
    named = json.loads((folder / f"{name}-names.json").read_text(encoding="utf-8"))
    tokens = np.memmap(folder / f"{name}-tokens.bin", dtype=f"<{np.dtype(dtype).str[1:]}", mode="r")
    names, sets = [entry[0] for entry in named], [entry[1] for entry in named]
    return Split(tokens, documents[0], documents[1, 1:], names, sets, end_of_text)


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
