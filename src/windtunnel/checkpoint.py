"""Checkpoints: folders of safetensors and JSON that are either whole or not there.

A group of tensors is one file. Where several processes hold parts of it, each writes a file of its own,
`model-00002-of-00004.safetensors`, whose header says which box of which tensor it holds: any number of processes, or
one alone, reads what it needs from them.

A folder is written under a temporary name, synced to disk and renamed. `checkpoint.json` lists every other file with
its size and XXH3 hash, so that damage is found before anything is used. It is an order of magnitude faster than
disks and SHA-256 do; it guards against accidents, not against someone who could change the list as well. There are no
pickles: loading runs no code.
"""

import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from windtunnel.distributed.files import read_parts, write_parts
from windtunnel.distributed.places import Place
from windtunnel.distributed.team import ALONE, Team
from windtunnel.errors import InputError, WorkError

FORMAT = 2
INDEX = "checkpoint.json"
Described: TypeAlias = dict[str, dict[str, Any]]  # "bytes" and "xxh3" of files by their names
_PARTIAL, _REPLACED = ".partial-", ".replaced-"


class Checkpoint(NamedTuple):
    """What a checkpoint holds: groups of named tensors ("model", "optimiser"), and everything else as JSON."""

    folder: Path
    tensors: dict[str, dict[str, Tensor]]
    record: dict[str, Any]


def save(
    folder: Path,
    tensors: dict[str, dict[str, Tensor]],
    record: dict[str, Any],
    team: Team = ALONE,
    places: Mapping[str, Place] | None = None,
) -> None:
    """Write a checkpoint; one file a group of tensors and process. An older checkpoint of the same name is replaced.

    places: where the tensors of this process lie, by parameter; all processes of a team call this with theirs, and
    only when every file is on the disk does the checkpoint appear.
    Raises `WorkError` if a disk refuses; then nothing is left behind and older checkpoints are untouched.
    """
    if team.size > 1:
        _save_parts(folder, tensors, record, team, places or {})
        return

    def fill(partial: Path) -> Described:
        for group, values in tensors.items():
            save_file({name: value.contiguous() for name, value in values.items()}, partial / f"{group}.safetensors")
        return {}

    write(folder, fill, record)


def write(folder: Path, fill: Callable[[Path], Described], record: dict[str, Any]) -> None:
    """`save` for tensors that are too many to be in memory: `fill` puts GROUP.safetensors into the folder it is given.

    It returns the size and the hash of each file that it hashed as it wrote it; the others are read again. What else
    `fill` raises goes through; `recover` tidies away what it leaves.
    """
    partial = folder.with_name(f"{_PARTIAL}{folder.name}")

    def clean() -> None:
        shutil.rmtree(partial, ignore_errors=True)

    with _reported(f"cannot write the checkpoint {folder}", cleanup=clean):
        clean()
        partial.mkdir(parents=True)
        known = fill(partial)
        files = {path.name: known.get(path.name) or _describe(path) for path in sorted(partial.iterdir())}
        _complete(partial, files, record)
        _appear(partial, folder)


def _save_parts(
    folder: Path, tensors: dict[str, dict[str, Tensor]], record: dict[str, Any], team: Team, places: Mapping[str, Place]
) -> None:
    """`save` by several processes: the lead makes the folder, each writes its files, the lead lets them appear."""
    partial = folder.with_name(f"{_PARTIAL}{folder.name}")
    reported = functools.partial(_reported, f"cannot write the checkpoint {folder}", cleanup=lambda: None)

    def begin() -> None:
        with reported():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def own() -> str:
        with reported():
            paths = [partial / f"{group}-{team.rank:05d}-of-{team.size:05d}.safetensors" for group in tensors]
            for path, values in zip(paths, tensors.values(), strict=True):
                write_parts(path, values, places, team.lead)
                sync(path)
            return json.dumps({path.name: _describe(path) for path in paths})

    def finish(described: list[str]) -> None:
        files = {name: each for part in described for name, each in json.loads(part).items()}
        with reported():
            _complete(partial, dict(sorted(files.items())), record)
            _appear(partial, folder)

    try:
        team.led(begin)
        described = team.collected(team.together(own))
        team.led(lambda: finish(described))
    except WorkError:
        if team.lead:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def load(
    folder: Path,
    groups: tuple[str, ...] | None = None,
    team: Team = ALONE,
    places: Mapping[str, Place] | None = None,
) -> Checkpoint:
    """Read a checkpoint after checking every file against its hash; `groups` limits what is read.

    places: which box of each parameter, and of what an optimiser keeps for it, this process wants; without one a tensor
    is read whole. The processes of a team share the checking.
    Raises `InputError` naming the file that is missing or damaged.
    """
    files = check(folder, groups, team)

    def read() -> dict[str, dict[str, Tensor]]:
        try:
            held = dict.fromkeys(_group(path) for path in files)
            return {
                group: read_parts([path for path in files if _group(path) == group], places or {}) for group in held
            }
        except (SafetensorError, OSError) as error:
            raise InputError(f"{folder}: cannot be read: {error}") from error

    return Checkpoint(folder, team.together(read), read_index(folder)["record"])


def check(folder: Path, groups: tuple[str, ...] | None = None, team: Team = ALONE) -> list[Path]:
    """The files of a checkpoint, or of these groups of it, once each has been held against its hash."""
    index = read_index(folder)
    wanted = [folder / name for name in index["files"] if groups is None or _group(folder / name) in groups]
    absent = set(groups or ()) - {_group(path) for path in wanted}
    if absent:
        raise InputError(f"{folder}: the checkpoint holds no {' and no '.join(sorted(absent))} state")

    def compare() -> None:
        for path in wanted[team.rank :: team.size]:
            _check(path, index["files"][path.name])

    team.together(compare)
    return wanted


def read_index(folder: Path) -> dict[str, Any]:
    """The list of files and the record of a checkpoint, without its tensors."""
    path = folder / INDEX
    index = read_json(path)
    if index.get("format") != FORMAT or not isinstance(index.get("files"), dict) or "record" not in index:
        raise InputError(f"{path}: not a checkpoint of format {FORMAT} (written by another version, or damaged)")
    return index


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, by name. Half-written ones carry another name and are not among them."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and (path / INDEX).is_file())


def remove(folder: Path) -> None:
    """Delete a checkpoint. Half-deleted, it is no checkpoint any more, and `recover` tidies it away."""
    partial = folder.with_name(f"{_PARTIAL}{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        folder.rename(partial)
    except OSError:
        return  # what cannot be deleted stays, as harmless as before
    shutil.rmtree(partial, ignore_errors=True)


def recover(folder: Path) -> None:
    """Tidy up after a killed process: delete what is half-written, put back what was being replaced."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(_REPLACED) and not (whole := folder / path.name.removeprefix(_REPLACED)).exists():
            path.rename(whole)
        elif path.name.startswith((_PARTIAL, _REPLACED)):
            shutil.rmtree(path, ignore_errors=True)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tied table appears once."""
    persistent = model.state_dict(keep_vars=True)
    parameters = dict(model.named_parameters())
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {name: tensor.detach() for name, tensor in {**parameters, **buffers}.items()}


def fill_model(model: nn.Module, tensors: dict[str, Tensor], source: object) -> None:
    """Copy tensors into a model; names, shapes and dtypes must agree, else an `InputError` names `source`."""
    fill(model_tensors(model), tensors, source)


@torch.no_grad()
def fill(targets: Mapping[str, Tensor], tensors: dict[str, Tensor], source: object) -> None:
    """Copy tensors into others of the same names, as `fill_model` does."""
    if targets.keys() != tensors.keys():
        odd = sorted(targets.keys() ^ tensors.keys())
        raise InputError(f"{source}: its weights are not this model's; they differ in {', '.join(odd[:5])}")
    for name, target in targets.items():
        value = tensors[name]
        if value.shape != target.shape or value.dtype != target.dtype:
            raise InputError(f"{source}: {name} is {_form(value)}, the model's is {_form(target)}")
        target.copy_(value)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an `InputError` that names the file."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: damaged or unreadable: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged: expected a JSON object")
    return value


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and put it in place of `path`."""
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    with _reported(f"cannot write {path}", cleanup=lambda: partial.unlink(missing_ok=True)):
        write(partial)
        sync(partial)
        partial.replace(path)
        sync(path.parent)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a JSON file atomically."""
    write_atomically(path, lambda partial: partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n"))


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(partial: Path, folder: Path) -> None:
    if folder.exists():
        old = folder.with_name(f"{_REPLACED}{folder.name}")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old)
    else:
        partial.rename(folder)


def _group(path: Path) -> str:
    """Which group of tensors a file holds some of."""
    return path.stem.partition("-")[0]


def _complete(partial: Path, files: dict[str, Any], record: dict[str, Any]) -> None:
    """Add the index, once all files are there."""
    (partial / INDEX).write_text(
        json.dumps({"format": FORMAT, "files": files, "record": record}, indent=1, allow_nan=False)
    )


def _appear(partial: Path, folder: Path) -> None:
    """Bring everything to the disk, then let the checkpoint be seen."""
    for path in partial.iterdir():
        sync(path)
    sync(partial)
    _rename(partial, folder)
    sync(folder.parent)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, xxhash.xxh3_128)
        return {"bytes": path.stat().st_size, "xxh3": digest.hexdigest()}


def _check(path: Path, expected: dict[str, Any]) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing from the checkpoint")
    if _describe(path) != expected:
        raise InputError(f"{path}: damaged: its size or hash is not the one recorded when it was written")


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


@contextmanager
def _reported(what: str, cleanup: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        cleanup()
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        raise WorkError(f"{what}: {'no space left on the disk' if full else error}; older ones are kept") from error
