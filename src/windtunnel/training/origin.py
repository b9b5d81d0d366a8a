"""Weights that a run begins with, where they are not drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from windtunnel.checkpoint import fill_model, read_index


@dataclass(frozen=True)
class Origin:
    """Tensors by name, where they are from, and their hashes, by which a resumed run is held to them.

    note: entries that `run.json` keeps.
    """

    tensors: dict[str, Tensor]
    source: str
    hashes: dict[str, str]
    note: dict[str, Any]

    @classmethod
    def of(cls, tensors: dict[str, Tensor], checkpoint: Path, note: dict[str, Any]) -> Self:
        """The weights of a checkpoint."""
        files = read_index(checkpoint)["files"]
        hashes = {name: str(files[name]["sha256"]) for name in sorted(files) if name.startswith("model")}
        return cls(tensors, str(checkpoint), hashes, note)

    def fill(self, model: nn.Module) -> None:
        """Put the weights into a model; raises `InputError` where they are another's."""
        fill_model(model, self.tensors, self.source)
