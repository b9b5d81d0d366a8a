"""A mesh: how many devices each kind of parallelism has, and which of them are neighbours."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod

from windtunnel.errors import InputError
from windtunnel.spec import nearest
from windtunnel.values import parse_count

INNER_FIRST = ("tensor", "context", "expert", "shard", "pipeline", "replicate")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices along each axis; their product is the number of devices.

    replicate: copies of the whole that exchange gradients. shard: other data, parameters gathered where they are used
    (fully sharded data parallelism). expert: other data, experts divided, everything else as by shard. context: one
    sequence divided, parameters as by shard. tensor: each matrix divided. pipeline: layers divided. The devices of an
    axis further right in `INNER_FIRST` lie further apart.
    """

    replicate: int = 1
    pipeline: int = 1
    shard: int = 1
    expert: int = 1
    context: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        """All of them."""
        return prod(self.axes().values())

    @property
    def data(self) -> int:
        """How many devices (or groups of them) are given other sequences."""
        return self.replicate * self.shard * self.expert

    @property
    def holders(self) -> int:
        """Over how many devices parameters are spread that are gathered where they are used, experts left out."""
        return self.shard * self.expert * self.context

    @property
    def words(self) -> str:
        """`replicate=2,shard=256,tensor=12`: the axes longer than one."""
        return ",".join(f"{name}={size}" for name, size in self.axes().items() if size > 1) or "one device"

    def axes(self) -> dict[str, int]:
        """Sizes by name, the outermost first."""
        return asdict(self)

    def span(self, *names: str) -> int:
        """How far apart the devices of these axes lie: the devices that a group of them stretches over."""
        outermost = max(INNER_FIRST.index(name) for name in names)
        return prod(getattr(self, name) for name in INNER_FIRST[: outermost + 1])

    def near(self, island: int, *names: str) -> int:
        """How many devices of a group along these axes lie in one island of `island` devices."""
        members, inside = 1, 1
        for name in INNER_FIRST:
            size = getattr(self, name)
            here = max(1, min(size, island // inside))
            members *= here if name in names else 1
            inside *= size
        return members


def parse_mesh(text: str, devices: int | None = None) -> Mesh:
    """`tensor=12,replicate=2`. Axes not named are 1, but for shard, which takes what is left of `devices`."""
    known = [field.name for field in fields(Mesh)]
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in known:
            raise InputError(f"mesh: unknown axis {name!r}{nearest(name, known)}")
        if name in sizes:
            raise InputError(f"mesh: {name} is given twice")
        sizes[name] = _size(name, value)
    return Mesh(**sizes) if devices is None else fill(sizes, devices)


def fill(sizes: Mapping[str, int], devices: int) -> Mesh:
    """The mesh of these axes over all devices; an `InputError` where they do not multiply to them."""
    named, words = prod(sizes.values()), " x ".join(f"{name} {size}" for name, size in sizes.items())
    if "shard" in sizes and named != devices:
        raise InputError(f"mesh: {words} is {named}, not the {devices} devices")
    if devices % named:
        raise InputError(f"mesh: {words} is {named}, which does not divide {devices} devices")
    return Mesh(**{"shard": devices // named, **sizes})


def _size(name: str, value: str) -> int:
    try:
        size = parse_count(value)
    except InputError as error:
        raise InputError(f"mesh: {name}: {error}") from error
    if size < 1:
        raise InputError(f"mesh: {name}: expected at least 1, got {size}")
    return size
