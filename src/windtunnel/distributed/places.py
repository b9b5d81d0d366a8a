"""Where a process's part of a tensor lies in the whole."""

from typing import NamedTuple


class Place(NamedTuple):
    """A box of a tensor. owned: whether this process answers for it, so that copies are counted and written once."""

    shape: tuple[int, ...]  # of the whole tensor
    offset: tuple[int, ...]
    extent: tuple[int, ...]  # of the box
    owned: bool = True

    @property
    def slices(self) -> tuple[slice, ...]:
        """What cuts the box out of the whole."""
        return tuple(slice(at, at + size) for at, size in zip(self.offset, self.extent, strict=True))

    def common(self, other: "Place") -> "Place | None":
        """The box that this one and another share; None if they do not meet."""
        low = tuple(map(max, self.offset, other.offset))
        high = tuple(
            min(at + size, there + long)
            for at, size, there, long in zip(self.offset, self.extent, other.offset, other.extent, strict=True)
        )
        if any(stop <= start for start, stop in zip(low, high, strict=True)):
            return None
        return Place(self.shape, low, tuple(stop - start for start, stop in zip(low, high, strict=True)))

    def inside(self, other: "Place") -> tuple[slice, ...]:
        """What cuts this box out of a larger one."""
        starts = [at - there for at, there in zip(self.offset, other.offset, strict=True)]
        return tuple(slice(start, start + size) for start, size in zip(starts, self.extent, strict=True))


def share(size: int, parts: int, index: int) -> tuple[int, int]:
    """Offset and length of one part of a dimension, as `torch.chunk` and FSDP2 cut it: the last ones may be short."""
    step = -(-size // parts)
    start = min(size, index * step)
    return start, min(size, start + step) - start
