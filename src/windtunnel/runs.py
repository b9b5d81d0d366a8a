"""Trained models, opened from their run folders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import windtunnel.parts  # noqa: F401 - defines the kinds that files may hold
from windtunnel.checkpoint import INDEX, checkpoints, fill_model, read_index, read_json
from windtunnel.checkpoint import load as load_checkpoint
from windtunnel.data.tokenizers import Tokenizer, load_tokenizer
from windtunnel.errors import InputError
from windtunnel.root import Model, ModelLayer
from windtunnel.spec import from_json

# Beside a run: its tokenizer, and of an imported one the small files that an export gives back as they were.
TOKENIZER, ORIGINAL = "tokenizer", "hugging_face"


@dataclass(frozen=True)
class Run:
    """A trained model with its tokenizer (None if it has none), its spec, and what is on record about it.

    record: `run.json`, with "result" (`result.json`, None while unfinished) and "checkpoint" (the folder read).
    """

    model: ModelLayer
    tokenizer: Tokenizer | None
    spec: Model
    record: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A run on disk, its weights unread: the folder, its spec, `run.json` with the result, the checkpoint chosen."""

    folder: Path
    spec: Model
    record: dict[str, Any]
    checkpoint: Path

    @property
    def imported(self) -> dict[str, Any] | None:
        """What `run.json` holds of the checkpoint made elsewhere that the run, or the one it began with, comes from."""
        found: dict[str, Any] | None = {**self.record.get("began_with", {}), **self.record}.get("imported")
        return found

    @property
    def trained(self) -> int:
        """Tokens of the longest sequences that it learned to read, before it was extended."""
        if "extended" in self.record:
            return int(self.record["extended"]["trained"])
        settings, before = self.record["identity"].get("settings"), self.record.get("began_with", {}).get("trained", 0)
        return max(int(before), self.spec.context if settings is None else int(settings["context"]))

    def tokenizer(self) -> Tokenizer | None:
        """The run's tokenizer, or None if it has none."""
        place = self.folder / TOKENIZER
        return load_tokenizer(place) if place.is_dir() else None


def find(folder: str | Path, checkpoint: str | None = None, packages: tuple[str, ...] = ()) -> Stored:
    """What `load` opens, without its weights. Raises `InputError` naming what is missing or damaged."""
    path = Path(folder)
    if not (path / "run.json").is_file():
        found = "nothing there" if not path.exists() else "no run.json in it"
        raise InputError(f"{path}: not a run folder: {found}")
    record = read_json(path / "run.json")
    result = read_json(path / "result.json") if (path / "result.json").is_file() else None
    spec = _read_spec(path / "spec.json", record, packages)
    source = _choose(path, checkpoint, result)
    check_belongs(source, record["identity"])
    return Stored(path, spec, {**record, "result": result, "checkpoint": str(source)}, source)


def load(
    folder: str | Path,
    checkpoint: str | None = None,
    device: str | torch.device = "cpu",
    packages: tuple[str, ...] = (),
) -> Run:
    """Open a run: the weights at the end of its budget, or of an unfinished run its last checkpoint.

    checkpoint: another one by its name ("step-40-horizon-0.5"). packages: the user's own, whose specs may be imported.
    Every file is checked against its hash and the spec against its fingerprint; no code is loaded with a model.
    Raises `InputError` naming what is missing or damaged.
    """
    found = find(folder, checkpoint, packages)
    tensors = load_checkpoint(found.checkpoint, ("model",)).tensors["model"]
    model = found.spec.build().to(device, _dtype_of(tensors))
    fill_model(model, tensors, found.checkpoint)
    return Run(model.eval(), found.tokenizer(), found.spec, found.record)


def check_belongs(checkpoint: Path, identity: dict[str, Any]) -> None:
    """Raise an `InputError` if a checkpoint was written by another run than the one of this identity (`run.json`)."""
    theirs = read_index(checkpoint)["record"].get("identity")
    found = [] if theirs is None else differences(theirs, identity)
    if found:
        raise InputError(
            f"{checkpoint}: was written by another run: {'; '.join(found[:6])}. Take it out of this folder to use "
            "what this run wrote itself"
        )


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """In what two runs differ, as far as both identities tell; the data that they pass over may differ."""
    common: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for part in ("settings", "data", "spec", "execution"):
        left, right = theirs.get(part, {}), ours.get(part, {})
        names = [name for name in left if name in right and (part, name) != ("settings", "skips")]
        for side, found in zip(common, (left, right), strict=True):
            side[part] = {name: found[name] for name in names}
    for side, found in zip(common, (theirs, ours), strict=True):
        side["origin"] = found.get("origin", {})
    return [f"{name} is {there!r} there and {here!r} here" for name, there, here in changes(*common)]


def changes(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields of JSON that differ: their path, the old value and the new one."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from changes(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from changes(before, now, f"{path}.{index}")
    elif old != new:
        yield path, old, new


def _dtype_of(tensors: dict[str, Tensor]) -> torch.dtype:
    """That of the weights: imported ones have been kept as they were."""
    return next((each.dtype for each in tensors.values() if each.is_floating_point()), torch.float32)


def _read_spec(path: Path, record: dict[str, Any], packages: tuple[str, ...]) -> Model:
    spec = from_json(read_json(path), packages, path="spec")
    if not isinstance(spec, Model):
        raise InputError(f"{path}: a {spec.kind}, not a language model")
    if spec.fingerprint() != _stated(record, path.with_name("run.json"), "identity", "spec", "fingerprint"):
        raise InputError(f"{path}: changed since the run was begun: its fingerprint is not the one in run.json")
    return spec


def _choose(path: Path, name: str | None, result: dict[str, Any] | None) -> Path:
    found = checkpoints(path / "checkpoints")
    if name is not None:
        known = ", ".join(each.name for each in found) or "none"
        if name not in {each.name for each in found}:
            raise InputError(f"{path}: has no checkpoint {name!r}; it has: {known}")
        return path / "checkpoints" / name
    final = None if result is None else _stated(result, path / "result.json", "horizons", "1.0", "checkpoint")
    if final is not None:
        return path / str(final)
    if not found:
        raise InputError(f"{path}: no whole checkpoint yet; the run was stopped before its first one, or diverged")
    return max(found, key=_order)


def _order(folder: Path) -> tuple[int, int]:
    """Unfinished work by its place in the run; weights at the end of a shorter horizon come last in choice."""
    record, path = read_index(folder)["record"], folder / INDEX
    if _stated(record, path, "final"):
        return -1, 0
    return _stated(record, path, "state", "segment"), _stated(record, path, "state", "step")


def _stated(record: Any, path: Path, *names: str) -> Any:
    """What a file says under these names, one inside the other; an `InputError` where it does not."""
    for name in names:
        if not isinstance(record, dict) or name not in record:
            raise InputError(f"{path}: damaged: it does not say {'.'.join(names)}")
        record = record[name]
    return record
