"""What is evaluated: a run that is not yet in memory, and the text that it is asked about."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from windtunnel.checkpoint import read_index
from windtunnel.data.corpus import read_corpus
from windtunnel.data.files import default_cache
from windtunnel.data.shard import Split
from windtunnel.data.shards import Dataset, open_dataset
from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError
from windtunnel.root import Model
from windtunnel.runs import Run, Stored, find, load

_MOST_TOKENS = 1 << 22  # of text that is read for an evaluation, not for training


@dataclass(frozen=True)
class Text:
    """Documents that no run was trained on. training: tokens of the training text, None where it is not at hand."""

    name: str
    fingerprint: str
    split: Split
    tokenizer: Tokenizer
    training: NDArray[np.unsignedinteger[Any]] | None = None

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of each token id; 0 for specials, which are never scored."""
        return self.tokenizer.token_bytes


@dataclass(frozen=True)
class Subject:
    """A run on disk. label: the arm that it belongs to; runs of one arm differ in their seeds alone."""

    label: str
    stored: Stored
    device: torch.device
    packages: tuple[str, ...] = ()
    text: Text | None = None

    @property
    def spec(self) -> Model:
        """The architecture."""
        return self.stored.spec

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.stored.folder

    @property
    def seed(self) -> int | None:
        """Of the initial weights; None for imported ones."""
        settings = self.stored.record["identity"].get("settings")
        return None if settings is None else int(settings["seed"])

    @property
    def trained(self) -> int:
        """Tokens of the sequences that it learned to read; of an extended run, before it was extended."""
        return self.stored.trained

    @property
    def context(self) -> int:
        """Tokens of the sequences that it was trained on last, which an extension makes longer."""
        settings = self.stored.record["identity"].get("settings")
        return self.spec.context if settings is None else int(settings["context"])

    @cached_property
    def weights(self) -> str:
        """A hash of the weights: that of their file, or of the hashes of their files."""
        files = read_index(self.stored.checkpoint)["files"]
        hashes = [files[name]["xxh3"] for name in sorted(files) if name.startswith("model")]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def heldout(self) -> Text:
        """The text; what asks for it has been checked to have one."""
        assert self.text is not None
        return self.text

    def load(self) -> Run:
        """The run in memory."""
        return load(self.folder, self.stored.checkpoint.name, self.device, self.packages)


def subjects_of(
    names: Sequence[str],
    data: Sequence[Path | str],
    text_field: str,
    device: torch.device,
    packages: tuple[str, ...] = (),
) -> list[Subject]:
    """Runs as they are typed, `[label=]folder`, with the text that they are all asked about.

    The text is `data`, or the held-out documents that the first run was scored on. Raises `InputError` for what is not
    there, for tokenizers that differ, and for data that a run was trained on.
    """
    if not names:
        raise InputError("RUN is missing: name one run folder or more")
    found = [_subject(name, device, packages) for name in names]
    _check_labels(found)
    tokenizers = [subject.stored.tokenizer() for subject in found]
    for subject, tokenizer in zip(found, tokenizers, strict=True):
        if tokenizer is None:
            raise InputError(
                f"{subject.folder}: has no tokenizer, so no text can be read by it; it was trained on a task"
            )
        if tokenizer.fingerprint != tokenizers[0].fingerprint:  # type: ignore[union-attr]
            raise InputError(
                f"{subject.folder}: its tokenizer ({tokenizer.label}) is not that of {found[0].folder} "
                f"({tokenizers[0].label}): figures by token cannot be compared; "  # type: ignore[union-attr]
                "evaluate them one by one, or train both with one --tokenizer"
            )
    text = _given(data, text_field, tokenizers[0], found) if data else _held_out(found[0])  # type: ignore[arg-type]
    return [replace(subject, text=text) for subject in found]


def held_out(dataset: Dataset) -> Text:
    """The documents that a data set keeps from training."""
    name = f"held-out documents of {dataset.record['name']}"
    return Text(name, dataset.record["id"], dataset.heldout, dataset.tokenizer, dataset.train.tokens)


def _subject(name: str, device: torch.device, packages: tuple[str, ...]) -> Subject:
    label, equals, folder = name.partition("=")
    if not equals or Path(name).exists():
        label, folder = Path(name).name, name
    return Subject(label, find(folder, packages=packages), device, packages)


def _check_labels(subjects: Sequence[Subject]) -> None:
    seen: dict[tuple[str, str], Subject] = {}
    arms: dict[str, Subject] = {}
    for subject in subjects:
        twin = seen.setdefault((subject.label, subject.weights), subject)
        if twin is not subject:
            raise InputError(f"{subject.folder}: is named twice, or has the weights of {twin.folder}; leave one out")
        first = arms.setdefault(subject.label, subject)
        if first.spec != subject.spec:
            raise InputError(
                f"{subject.folder}: is not the architecture of {first.folder}, both called {subject.label!r}; "
                "name one of them apart, as other=FOLDER"
            )


def _held_out(subject: Subject) -> Text:
    """What the run was scored on, from the shards that it was trained with."""
    record = subject.stored.record.get("data") or {}
    folder = default_cache() / str(record.get("id"))
    if "id" not in record or not folder.is_dir():
        raise InputError(
            f"{subject.folder}: its held-out text is not in {default_cache()}; name a text by --data, all of which is "
            "then read"
        )
    return held_out(open_dataset(folder))


def _given(data: Sequence[Path | str], text_field: str, tokenizer: Tokenizer, subjects: Sequence[Subject]) -> Text:
    corpus = read_corpus(list(data), text_field)
    for subject in subjects:
        if (subject.stored.record.get("data") or {}).get("fingerprint") == corpus.fingerprint:
            raise InputError(
                f"--data: is what {subject.folder} was trained on; leave it out, and the part that was held out is read"
            )
    parts, sizes, names = [], [], []
    sets: list[str | None] = []
    for document in corpus.documents:
        ids = tokenizer.encode(document.text)
        parts.append(np.concatenate([[tokenizer.begin_of_text], ids]))
        sizes.append(int(tokenizer.token_bytes[ids].sum()))
        names.append(document.name)
        sets.append(document.set)
        if sum(map(len, parts)) > _MOST_TOKENS:
            break
    offsets = np.cumsum([0, *map(len, parts)])
    tokens = np.concatenate(parts).astype(np.uint32)
    split = Split(tokens, offsets, np.array(sizes, np.int64), names, sets, tokenizer.begin_of_text)
    key = hashlib.sha256(f"{corpus.fingerprint} {tokenizer.fingerprint}".encode()).hexdigest()[:32]
    return Text(corpus.name, key, split, tokenizer)
