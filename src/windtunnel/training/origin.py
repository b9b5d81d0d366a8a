"""Weights that a run begins with, where they are not drawn: those of another run, trained here or imported."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from windtunnel.checkpoint import load, read_index
from windtunnel.distributed.places import Place
from windtunnel.distributed.team import Team
from windtunnel.errors import InputError
from windtunnel.runs import ORIGINAL, TOKENIZER, Stored
from windtunnel.training.workload import Workload

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """A run whose weights another begins with. hashes: of their files, by which a resumed run is held to them.

    note: entries that `run.json` keeps. change: what becomes of the tensors first, where the models differ; then they
    are read whole, by one process.
    """

    source: Stored
    hashes: dict[str, str]
    note: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Tensors], Tensors] | None = None

    @classmethod
    def of(
        cls, source: Stored, note: dict[str, Any] | None = None, change: Callable[[Tensors], Tensors] | None = None
    ) -> Self:
        """The weights of a run's checkpoint."""
        files = read_index(source.checkpoint)["files"]
        hashes = {name: str(files[name]["xxh3"]) for name in sorted(files) if name.startswith("model")}
        began: dict[str, Any] = {"run": str(source.folder), "checkpoint": source.checkpoint.name}
        began["trained"] = source.trained
        if source.imported is not None:
            began["imported"] = source.imported
        kept = {"extended": source.record["extended"]} if "extended" in source.record else {}
        return cls(source, hashes, {"began_with": began, **kept, **(note or {})}, change)

    def check(self, workload: Workload, team: Team) -> None:
        """Refuse tokens of another tokenizer, which mean nothing to these weights."""
        own, theirs = self.source.tokenizer(), workload.identity.get("tokenizer")
        if own is not None and theirs is not None and own.fingerprint != theirs:
            raise InputError(f"{self.source.folder}: reads by its own tokenizer, {own.label}; prepare the data with it")
        if self.change is not None and team.size > 1:
            raise InputError(f"{self.source.folder}: its weights are changed by one process, not by {team.size}")

    def read(self, team: Team, places: Mapping[str, Place]) -> Tensors:
        """This process's parts of the weights, checked against their hashes."""
        tensors = load(self.source.checkpoint, ("model",), team, places).tensors["model"]
        return tensors if self.change is None else self.change(tensors)

    def keep(self, folder: Path) -> None:
        """Put beside the new run what belongs to its vocabulary: the tokenizer, and what an export gives back."""
        for name in (TOKENIZER, ORIGINAL):
            if (self.source.folder / name).is_dir():
                shutil.copytree(self.source.folder / name, folder / name, dirs_exist_ok=True)
