"""A run folder on disk: its lock, its identity, its checkpoints and its result."""

import fcntl
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from windtunnel.checkpoint import checkpoints, read_index, read_json, recover, remove, save, write_json
from windtunnel.errors import InputError, WorkError
from windtunnel.spec import from_json
from windtunnel.training.loop import Snapshot

RESULT = "result.json"
_LOCK = "lock"


class Saved(NamedTuple):
    """A checkpoint that training can go on from. `base` is the trunk checkpoint a branch's needs beside it."""

    segment: int
    step: int
    name: str
    base: str | None


class RunFolder:
    """The files of one run. Use inside `locked()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.saved: list[Saved] = []
        self.changed = False  # whether a resumed run has other skips

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. Another live process in it is an `InputError`; a dead one leaves no lock."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; name a folder for the run")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("a+")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written to: {error.strerror}") from error
        with file:
            self._take(file)
            yield

    def identify(self, identity: dict[str, Any], resume: bool) -> bool:
        """Claim an empty folder for a run, or check that it holds the same run. Returns whether one was there."""
        path = self.path / "run.json"
        if not path.is_file():
            strangers = sorted(each.name for each in self.path.iterdir() if each.name != _LOCK and each.name[0] != ".")
            if strangers:
                raise InputError(f"{self.path}: holds {strangers[0]} but no run; name an empty or new folder")
            write_json(path, identity)
            return False
        if not resume:
            raise InputError(f"{self.path}: already holds a run; go on with it by --resume, or name another folder")
        stored = read_json(path)
        _compare(self.path, stored["identity"], identity["identity"], skips=(self.path / RESULT).is_file())
        self.changed = stored["identity"] != identity["identity"]
        recover(self.checkpoints)
        self.saved = sorted(_saved(folder) for folder in checkpoints(self.checkpoints) if _resumable(folder))
        return True

    def save(
        self, position: Saved, snapshot: Snapshot, record: dict[str, Any], keep: int, needed_too: Container[Saved] = ()
    ) -> None:
        """Write a checkpoint to go on from, then delete all but the last `keep`, their trunks and `needed_too`."""
        self._save(position.name, snapshot, {"state": record, "base": position.base, "final": False})
        self.saved = sorted({each for each in self.saved if each.name != position.name} | {position})
        kept = self.saved[-keep:]
        kept += [each for each in self.saved if each in needed_too]
        needed = {each.name for each in kept} | {each.base for each in kept}
        self.discard([each for each in self.saved if each.name not in needed])

    def discard(self, unwanted: Sequence[Saved]) -> None:
        """Delete checkpoints; one that a killed process was deleting is never seen again."""
        for each in unwanted:
            remove(self.checkpoints / each.name)
        self.saved = [each for each in self.saved if each not in unwanted]

    def note(self, entry: str, value: Any) -> None:
        """Put an entry of `run.json` beside the run's identity, or replace it."""
        path = self.path / "run.json"
        write_json(path, {**read_json(path), entry: value})

    def save_final(self, name: str, snapshot: Snapshot, record: dict[str, Any]) -> None:
        """Write the weights at the end of a horizon."""
        self._save(name, {"model": snapshot["model"]}, {"horizon": record, "final": True})

    def _save(self, name: str, snapshot: Snapshot, record: dict[str, Any]) -> None:
        try:
            save(self.checkpoints / name, dict(snapshot), record)
        except WorkError as error:
            last = f"--resume goes on from {self.saved[-1].name}" if self.saved else "no earlier state was saved"
            raise WorkError(f"{error}; {last}") from error

    def _take(self, file: IO[str]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise InputError(
                f"{self.path}: in use by another process ({holder}); wait for it or name another folder"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()


def _compare(folder: Path, old: dict[str, Any], new: dict[str, Any], skips: bool) -> None:
    """Refuse to go on with a run under another identity, naming every field that changed.

    skips: whether the data to pass over must agree too, as it must for a run that is finished.
    """
    old = {**old, "settings": from_json(old["settings"], path="settings").to_json()}  # with later versions' fields
    if not skips:
        old["settings"]["skips"] = new["settings"]["skips"]
    changed = [
        f"{name} was {before!r}, now {now!r}"
        for part in ("settings", "data", "spec", "execution")
        for name, before, now in _changes(old.get(part, {}), new.get(part, {}), part)
    ]
    if changed:
        raise InputError(
            f"{folder}: cannot resume, this is another run: {'; '.join(changed[:6])}. "
            "Give the values that it was begun with, or name another folder"
        )


def _changes(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _changes(old.get(name), new.get(name), f"{path}.{name}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, now, f"{path}.{index}")
    elif old != new:
        yield path, old, new


def _resumable(folder: Path) -> bool:
    return not read_index(folder)["record"]["final"]


def _saved(folder: Path) -> Saved:
    record = read_index(folder)["record"]
    return Saved(record["state"]["segment"], record["state"]["step"], folder.name, record["base"])
