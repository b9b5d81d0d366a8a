"""What runs on the machines of a cluster: a job there, the look at its folders before, the tally of its tokens."""

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import windtunnel
from windtunnel.comparison.pool import work


@dataclass(frozen=True)
class View:
    """What every machine must see as the one that started the study does.

    mark: an empty file of a new name in the study's folder. files: names and sizes under `read`, the study's tokens;
    a synthetic task has none.
    versions: of whatever decides the bits of a run.
    """

    mark: Path
    read: Path | None
    files: dict[str, int]
    versions: dict[str, str]

    @classmethod
    def of(cls, mark: Path, read: Path | None) -> "View":
        return cls(mark, read, _files(read), _versions())

    def difference(self) -> str:
        """What is otherwise on this machine, in words; "" if nothing is."""
        if not self.mark.is_file():
            return f"does not see the study's folder {self.mark.parent}: put it on a path that all nodes share"
        if not os.access(self.mark.parent, os.W_OK):
            return f"may not write into the study's folder {self.mark.parent}"
        if _files(self.read) != self.files:
            return f"does not see the same tokens in {self.read}: put the cache on a path that all nodes share"
        for name, version in _versions().items():
            if version != self.versions[name]:
                return f"has {name} {version}, and the study {self.versions[name]}"
        return ""


class Tally:
    """An actor beside the study: tokens of every job, and where each was last at work."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        self._places: dict[str, str] = {}

    def note(self, name: str, tokens: int, place: str) -> None:
        self._tokens[name], self._places[name] = tokens, place

    def read(self) -> tuple[dict[str, int], dict[str, str]]:
        return self._tokens, self._places


def attempt(name: str, function: str, payload: dict[str, Any], view: View, tally: Any) -> dict[str, Any]:
    """Carry out a job with one thread. A machine that is not like the others says so in `unfit`."""
    import torch

    torch.set_num_threads(1)
    difference = view.difference()
    if difference:
        return {"unfit": f"{socket.gethostname()} {difference}"}
    place = f"{socket.gethostname()}, process {os.getpid()}"
    tally.note.remote(name, 0, place)
    return work(function, payload, lambda tokens: tally.note.remote(name, tokens, place))


def _files(folder: Path | None) -> dict[str, int]:
    if folder is None:
        return {}
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _versions() -> dict[str, str]:
    import torch

    return {"windtunnel": windtunnel.__version__, "torch": torch.__version__, "python": platform.python_version()}
