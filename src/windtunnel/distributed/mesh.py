"""The mesh: how many devices share what."""

import math

from windtunnel.errors import InputError
from windtunnel.spec import Spec, nearest

AXES = ("replicate", "shard", "expert", "context", "tensor")


class Mesh(Spec):
    """Devices in a grid. Neighbours on the last axis have neighbouring ranks, so that it gets the fastest links.

    replicate: groups that each hold all weights and exchange gradients once a step (PaLM's two pods).
    shard:     devices over which the weights, gradients and optimiser state of a group are spread (FSDP2); None
               takes the devices that the other axes leave.
    expert:    devices over which the experts are spread, and everything else as over `shard`; each reads other rows.
    context:   devices over which every row is spread, and the weights as over `shard`.
    tensor:    devices over which the heads and hidden units of every block are spread; they read the same rows.
    """

    replicate: int = 1
    shard: int | None = None
    expert: int = 1
    context: int = 1
    tensor: int = 1

    @classmethod
    def parse(cls, text: str) -> "Mesh":
        """`replicate=2,shard=4` as a mesh."""
        given: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name not in AXES:
                raise InputError(f"--mesh: no axis {name!r}{nearest(name, AXES)}")
            if name in given:
                raise InputError(f"--mesh: {name} is given twice")
            if not value.isdecimal() or int(value) < 1:
                raise InputError(f"--mesh: {name} must be a whole number of at least 1, got {value!r}")
            given[name] = int(value)
        return cls(**given)

    def validate(self) -> None:
        for name in AXES:
            value = getattr(self, name)
            self.require(value is None or value >= 1, f"{name} is {value!r}; it must be at least 1")

    def over(self, devices: int) -> "Mesh":
        """This mesh on so many devices, with nothing left open. Raises `InputError` if they do not fit."""
        fixed = math.prod(getattr(self, name) for name in AXES if name != "shard")
        shard = self.shard if self.shard is not None else max(1, devices // fixed)
        if fixed * shard != devices:
            words = " x ".join(f"{name}={getattr(self, name)}" for name in AXES if getattr(self, name) not in (None, 1))
            raise InputError(
                f"--mesh: {words or 'shard=1'} does not divide {devices} device{'s' if devices > 1 else ''}; "
                f"start {fixed * shard} processes (torchrun --nproc-per-node), or name other sizes"
            )
        return self.replace(shard=shard)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Devices along each axis of a mesh with nothing left open."""
        return tuple(getattr(self, name) or 1 for name in AXES)

    @property
    def readers(self) -> int:
        """How many devices, or groups of them, read different rows of a batch."""
        return self.replicate * (self.shard or 1) * self.expert

    @property
    def holders(self) -> int:
        """Over how many devices the weights of a group are spread, those of experts left out."""
        return (self.shard or 1) * self.expert * self.context

    def __str__(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in zip(AXES, self.sizes, strict=True) if size > 1) or "shard=1"
