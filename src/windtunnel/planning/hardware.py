"""Hardware as published: a small table, a file to change it by, and the machine that this runs on, measured."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError
from windtunnel.planning.basis import Basis
from windtunnel.spec import nearest

_TPU = "Jouppi et al. 2023, arXiv 2304.01433"
_NUMBERS = ("memory", "bandwidth", "link", "network")
_COUNTS = ("island", "host")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One kind of device. Bandwidths are bytes a second in one direction.

    peaks:     FLOP/s of dense matrix products by precision; "bfloat16" stands for 16 bits where a device has float16.
    memory:    bytes of a device. bandwidth: of that memory.
    island:    devices that fast links join. link: of all fast links of a device together.
    host:      devices of one host. network: of a host, to other islands.
    source:    where the values were published. others: fields from elsewhere, with basis and source.
    """

    name: str
    peaks: Mapping[str, float]
    memory: float
    bandwidth: float
    island: int
    link: float
    host: int
    network: float
    source: str
    others: Mapping[str, tuple[Basis, str]] = field(default_factory=dict)

    @property
    def network_of_device(self) -> float:
        """A device's share of its host's network."""
        return self.network / self.host

    def basis(self, name: str) -> tuple[Basis, str]:
        """Where a field comes from."""
        return self.others.get(name, ("published", self.source))

    def peak(self, dtype: str) -> float:
        """FLOP/s at a precision; an `InputError` where none is known."""
        if dtype not in self.peaks:
            raise InputError(f"dtype: no peak of {self.name} in {dtype} is known; it has {', '.join(self.peaks)}")
        return self.peaks[dtype]

    def to_json(self) -> dict[str, Any]:
        """All fields, with the basis of each."""
        known = [each.name for each in fields(self) if each.name not in ("name", "source", "others")]
        bases = {name: self.basis(name) for name in known}
        told = {name: {"basis": basis, "source": source} for name, (basis, source) in bases.items()}
        record = {**asdict(self), "basis": told}
        return {name: value for name, value in record.items() if name not in ("source", "others")}


def _gpu(name: str, half: float, single: float, memory: float, bandwidth: float, link: float, rail: float) -> Hardware:
    """A server of eight, each with `rail` bytes a second of its own into the network."""
    return Hardware(
        name=name,
        peaks={"bfloat16": half, "float32": single},
        memory=memory,
        bandwidth=bandwidth,
        island=8,
        link=link,
        host=8,
        network=8 * rail,
        source=f"NVIDIA's data sheets of {name.upper()} (SXM) and of its DGX server",
    )


TABLE: dict[str, Hardware] = {
    "v100": replace(
        _gpu("v100", 125e12, 15.7e12, 32e9, 0.9e12, 150e9, 6.25e9), source="NVIDIA's data sheets of V100 and DGX-1"
    ),
    "a100": _gpu("a100", 312e12, 19.5e12, 80e9, 2.039e12, 300e9, 25e9),
    "h100": _gpu("h100", 989.4e12, 66.9e12, 80e9, 3.35e12, 450e9, 50e9),
    "h200": _gpu("h200", 989.4e12, 66.9e12, 141e9, 4.8e12, 450e9, 50e9),
    "tpu-v3": Hardware(
        name="tpu-v3",
        peaks={"bfloat16": 123e12},
        memory=32 * 2**30,
        bandwidth=0.9e12,
        island=1024,
        link=4 * 70e9,
        host=4,
        network=12.5e9,
        source=_TPU,
        others={"network": ("assumed", "100 Gbit/s a host; not published")},
    ),
    "tpu-v4": Hardware(
        name="tpu-v4",
        peaks={"bfloat16": 275e12},
        memory=32 * 2**30,
        bandwidth=1.2e12,
        island=4096,
        link=6 * 50e9,
        host=4,
        network=81e12 / 8 / 768,
        source=_TPU,
        others={"network": ("published", "PaLM, section 4: bursts of 81 Tbit/s between 768 pairs of hosts")},
    ),
}
NAMES = (*TABLE, "cpu")


def find(name: str, file: Path | None = None, cache: Path | None = None) -> Hardware:
    """The named hardware: of the file, of the table, or this machine ("cpu"), which takes a second to measure."""
    own = read(file) if file is not None else {}
    if name in own:
        return own[name]
    if name == "cpu":
        return this_machine(cache)
    if name not in TABLE:
        raise InputError(f"hardware: unknown {name!r}; known are {', '.join(dict.fromkeys((*own, *NAMES)))}")
    return TABLE[name]


def read(file: Path) -> dict[str, Hardware]:
    """Hardware by name from a JSON file: {"name": {"base": "h100", "memory": 96e9, ...}}.

    base: an entry of the table whose other values hold; by default the one of the same name. Without one all fields
    must be there.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"hardware file {file}: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise InputError(f'hardware file {file}: expected {{"name": {{"memory": 80e9, ...}}}}')
    return {name: _entry(f"hardware file {file}: {name}", name, entry) for name, entry in found.items()}


def _entry(where: str, name: str, given: Mapping[str, Any]) -> Hardware:
    allowed = ("base", "source", "peaks", *_NUMBERS, *_COUNTS)
    for key in given:
        if key not in allowed:
            raise InputError(f"{where}: unknown field {key!r}{nearest(key, allowed)}")
    base = given.get("base", name)
    if base not in TABLE and "base" in given:
        raise InputError(f"{where}: base: unknown {base!r}{nearest(str(base), TABLE)}")
    values = {key: _checked(where, key, value) for key, value in given.items() if key not in ("base", "source")}
    source = str(given.get("source", where))
    if base in TABLE:
        others: dict[str, tuple[Basis, str]] = {**TABLE[base].others, **dict.fromkeys(values, ("given", source))}
        return replace(TABLE[base], name=name, others=others, **values)
    missing = [key for key in ("peaks", *_NUMBERS, *_COUNTS) if key not in values]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} must be given, or a base: {', '.join(TABLE)}")
    return Hardware(name=name, source=source, others=dict.fromkeys(values, ("given", source)), **values)


def _checked(where: str, key: str, value: Any) -> Any:
    if key == "peaks":
        good = isinstance(value, dict) and bool(value) and all(_positive(each) for each in value.values())
        expected = 'FLOP/s by precision, such as {"bfloat16": 312e12}'
    elif key in _COUNTS:
        good, expected = isinstance(value, int) and _positive(value), "a whole number of at least 1"
    else:
        good, expected = _positive(value), "a number above 0"
    if not good:
        raise InputError(f"{where}: {key}: expected {expected}, got {value!r}")
    return value


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def this_machine(cache: Path | None = None) -> Hardware:
    """The CPU that this runs on, with all of torch's threads: the fastest matrix product and copy that it showed."""
    import torch

    from windtunnel.execution import Execution, hardware_name, host_memory, measured_peak

    resolved = Execution(device="cpu", dtype="float32").resolve()
    threads = f"{hardware_name(torch.device('cpu'))}, {resolved.threads} threads"
    words: tuple[Basis, str] = ("measured", threads)
    wire: tuple[Basis, str] = ("assumed", "10 Gbit/s Ethernet")
    return Hardware(
        name="cpu",
        peaks={"float32": measured_peak(resolved, cache)},
        memory=host_memory() or math.inf,
        bandwidth=_copied_per_second(),
        island=1,
        link=1.25e9,
        host=1,
        network=1.25e9,
        source=threads,
        others={"peaks": words, "memory": words, "bandwidth": words, "link": wire, "network": wire}
        | {"island": ("assumed", "one process a machine"), "host": ("assumed", "one process a machine")},
    )


def _copied_per_second(numbers: int = 1 << 24, rounds: int = 5) -> float:
    """Bytes read and written a second by the best of some copies that no cache holds."""
    import torch

    source, target = torch.ones(numbers), torch.ones(numbers)
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - began)
    return 8 * numbers / best
