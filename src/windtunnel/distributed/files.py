"""Parts of tensors in safetensors files: each file says in its header which box of which tensor it holds."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from windtunnel.distributed.places import Place
from windtunnel.errors import InputError

_BOXES = "boxes"


def write_parts(path: Path, values: Mapping[str, Tensor], places: Mapping[str, Place], lead: bool) -> None:
    """Write what this process answers for. Tensors without a place are the same everywhere: the lead's are written."""
    found = {
        name: _place_of(name, tuple(value.shape), places) or _everything(value.shape, lead)
        for name, value in values.items()
    }
    kept = {name: place for name, place in found.items() if place.owned and 0 not in place.extent}
    boxes = json.dumps({name: [place.shape, place.offset] for name, place in kept.items()})
    save_file({name: values[name].contiguous() for name in kept}, path, {_BOXES: boxes})


def read_parts(paths: Sequence[Path], places: Mapping[str, Place]) -> dict[str, Tensor]:
    """Tensors, or the boxes of them that `places` names, put together from the parts in all files.

    Raises `InputError` if a part is in none of them.
    """
    if not places and len(paths) == 1 and not _has_boxes(paths[0]):
        return load_file(paths[0])
    found: dict[str, Tensor] = {}
    filled: Counter[str] = Counter()
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for part in _parts(file):
                wanted = _place_of(part.name, part.place.shape, places) or _everything(part.place.shape)
                if part.name not in found:
                    found[part.name] = part.read(file, part.nothing).new_empty(wanted.extent)
                common = wanted.common(part.place)
                if common is not None:
                    value = part.read(file, common.inside(part.place))
                    found[part.name][common.inside(wanted)] = value
                    filled[part.name] += value.numel()
    lacking = [name for name, value in found.items() if filled[name] != value.numel()]
    if lacking:
        raise InputError(f"{paths[0].parent}: parts of {', '.join(lacking[:5])} are missing from the checkpoint")
    return found


class _Part(NamedTuple):
    name: str
    place: Place

    @property
    def nothing(self) -> tuple[slice, ...]:
        return tuple(slice(0, 0) for _ in self.place.extent)

    def read(self, file: Any, box: tuple[slice, ...]) -> Tensor:
        value: Tensor = file.get_slice(self.name)[box] if box else file.get_tensor(self.name)
        return value


def _parts(file: Any) -> Iterator[_Part]:
    boxes = json.loads((file.metadata() or {}).get(_BOXES, "{}"))
    for name in file.keys():  # noqa: SIM118 - no mapping
        extent = tuple(file.get_slice(name).get_shape())
        shape, offset = boxes.get(name, (extent, (0,) * len(extent)))
        yield _Part(name, Place(tuple(shape), tuple(offset), extent))


def _has_boxes(path: Path) -> bool:
    with safe_open(path, framework="pt") as file:
        return _BOXES in (file.metadata() or {})


def _place_of(name: str, shape: tuple[int, ...], places: Mapping[str, Place]) -> Place | None:
    """Where a tensor lies: its parameter's place, if it has one entry for each of the parameter's."""
    place = places.get(name) or places.get(name.rpartition("/")[0])
    fits = place is not None and shape in (place.shape, place.extent)
    return place if fits else None


def _everything(shape: Sequence[int], owned: bool = True) -> Place:
    return Place(tuple(shape), (0,) * len(shape), tuple(shape), owned)
