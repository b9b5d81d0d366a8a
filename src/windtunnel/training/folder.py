"""A run folder on disk: its lock, its identity, its checkpoints and its result."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from windtunnel.checkpoint import (
    Checkpoint,
    checkpoints,
    load,
    read_index,
    read_json,
    recover,
    remove,
    save,
    write_json,
)
from windtunnel.distributed.places import Place
from windtunnel.distributed.team import ALONE, Team
from windtunnel.errors import InputError, WorkError
from windtunnel.runs import changes, check_belongs
from windtunnel.spec import from_json
from windtunnel.training.loop import Snapshot
from windtunnel.training.writer import Writer

RESULT = "result.json"
_LOCK = "lock"


class Saved(NamedTuple):
    """A checkpoint that training can go on from. `base` is the trunk checkpoint a branch's needs beside it."""

    segment: int
    step: int
    name: str
    base: str | None


class RunFolder:
    """The files of one run. Use inside `locked()`.

    Checkpoints are written by `writer`, which may be behind: `saved` counts the one that is being written, and who
    reads checkpoints waits for it. If it cannot be written, it is taken back from `saved` before its error is raised.
    Every process of a team calls the same methods; the lead alone writes, but for the parts of checkpoints, for which
    the writers of all wait. places: where the tensors of this process lie, by parameter.
    """

    def __init__(self, path: Path, background: bool = True, team: Team = ALONE) -> None:
        self.path, self.team = path, team
        self.writer = Writer(background)
        self._writing = team.aside if background and team.aside is not None else team
        self.places: Mapping[str, Place] = {}
        self.checkpoints = path / "checkpoints"
        self.saved: list[Saved] = []
        self.changed = False  # whether a resumed run has other skips
        self._identity: dict[str, Any] = {}
        self._found = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. Another live process in it is an `InputError`; a dead one leaves no lock."""
        with contextlib.ExitStack() as held:
            self.team.led(lambda: self._lock(held))
            yield

    def _lock(self, held: contextlib.ExitStack) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; name a folder for the run")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("a+")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written to: {error.strerror}") from error
        self._take(held.enter_context(file))

    def identify(self, identity: dict[str, Any], resume: bool) -> bool:
        """Claim an empty folder for a run, or check that it holds the same run, and checkpoints of no other.

        Returns whether one was there.
        """
        self._identity = identity["identity"]
        self.team.led(lambda: self._identify(identity, resume))
        found, self.changed, saved = self.team.agreed((self._found, self.changed, self.saved))
        self.saved = [Saved(*each) for each in saved]
        return bool(found)

    def _identify(self, identity: dict[str, Any], resume: bool) -> None:
        path = self.path / "run.json"
        if not path.is_file():
            strangers = sorted(each.name for each in self.path.iterdir() if each.name != _LOCK and each.name[0] != ".")
            if strangers:
                raise InputError(f"{self.path}: holds {strangers[0]} but no run; name an empty or new folder")
            write_json(path, identity)
            return
        if not resume:
            raise InputError(f"{self.path}: already holds a run; go on with it by --resume, or name another folder")
        stored = read_json(path)
        if "imported" in stored:
            raise InputError(f"{self.path}: holds an imported model, which has no training to go on with")
        _compare(self.path, stored["identity"], identity["identity"], skips=(self.path / RESULT).is_file())
        self.changed = stored["identity"] != identity["identity"]
        recover(self.checkpoints)
        found = checkpoints(self.checkpoints)
        for each in found:
            check_belongs(each, identity["identity"])
        self.saved = sorted(_saved(folder) for folder in found if _resumable(folder))
        self._found = True

    def go_back(self, name: str) -> None:
        """Forget a result and what was saved after a checkpoint; an `InputError` if no such checkpoint is kept."""
        kept = [each.name for each in self.saved]
        if name not in kept:
            raise InputError(f"{self.path}: {name!r} is not among the kept checkpoints: {', '.join(kept) or 'none'}")
        self.team.led(lambda: (self.path / RESULT).unlink(missing_ok=True))
        self.discard(self.saved[kept.index(name) + 1 :])

    def save(
        self,
        position: Saved,
        snapshot: Snapshot,
        record: dict[str, Any],
        keep: int,
        needed_too: Container[Saved] = (),
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a checkpoint to go on from, then delete all but the last `keep`, their trunks and `needed_too`.

        first: what must be done before the checkpoint appears. The snapshot must not change any more.
        """
        self.writer.wait()
        before = self.saved
        after = sorted({each for each in before if each.name != position.name} | {position})
        kept = after[-keep:] + [each for each in after if each in needed_too]
        needed = {each.name for each in kept} | {each.base for each in kept}
        self.saved = [each for each in after if each.name in needed]

        def write() -> None:
            try:
                self._writing.led(first)
                self._write(position.name, snapshot, {"state": record, "base": position.base, "final": False}, before)
            except WorkError:
                self.saved = before
                raise
            self._remove([each for each in after if each.name not in needed], self._writing)

        self.writer.submit(write)

    def discard(self, unwanted: Sequence[Saved]) -> None:
        """Delete checkpoints, the last first; one that a killed process was deleting is never seen again."""
        self.writer.wait()
        self._remove(unwanted, self.team)
        self.saved = [each for each in self.saved if each not in unwanted]

    def note(self, entry: str, value: Any) -> None:
        """Put an entry of `run.json` beside the run's identity, or replace it."""
        path = self.path / "run.json"
        self.write(path.name, lambda: {**read_json(path), entry: value})

    def write(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Replace a JSON file of the folder; only the lead makes its contents."""
        self.team.led(lambda: write_json(self.path / name, make()))

    def load(self, name: str, groups: tuple[str, ...] | None = None) -> Checkpoint:
        """This process's parts of a checkpoint."""
        return load(self.checkpoints / name, groups, self.team, self.places)

    def save_final(self, name: str, snapshot: Snapshot, record: dict[str, Any]) -> None:
        """Write the weights at the end of a horizon."""
        self.writer.wait()
        weights, saved = {"model": snapshot["model"]}, self.saved
        self.writer.submit(lambda: self._write(name, weights, {"horizon": record, "final": True}, saved))

    def _write(self, name: str, snapshot: Snapshot, record: dict[str, Any], before: Sequence[Saved]) -> None:
        try:
            whole = {**record, "identity": self._identity}
            save(self.checkpoints / name, dict(snapshot), whole, self._writing, self.places)
        except WorkError as error:
            last = f"--resume goes on from {before[-1].name}" if before else "no earlier state was saved"
            raise WorkError(f"{error}; {last}") from error

    def _remove(self, unwanted: Sequence[Saved], team: Team) -> None:
        def delete() -> None:
            for each in reversed(unwanted):
                remove(self.checkpoints / each.name)

        team.led(delete)

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
        for part in ("settings", "data", "spec", "execution", "origin")
        for name, before, now in changes(old.get(part, {}), new.get(part, {}), part)
    ]
    if changed:
        raise InputError(
            f"{folder}: cannot resume, this is another run: {'; '.join(changed[:6])}. "
            "Give the values that it was begun with, or name another folder"
        )


def _resumable(folder: Path) -> bool:
    return not read_index(folder)["record"]["final"]


def _saved(folder: Path) -> Saved:
    record = read_index(folder)["record"]
    return Saved(record["state"]["segment"], record["state"]["step"], folder.name, record["base"])
