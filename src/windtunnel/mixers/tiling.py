"""Cutting a pattern into tiles: which blocks of queries meet which keys, so that no pair is missed or met twice."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from windtunnel.kernels.tiled import Tiles

Sees = Callable[[Tensor, Tensor], Tensor]
_BLOCK = 64
_STEP = 64  # tiles of similar size go together: numbers of keys are filled up to multiples of this


class Piece(NamedTuple):
    """Tiles of one size before their pairs are looked up: queries [n i], keys [n j], -1 for none; the pairs' rule."""

    queries: Tensor
    keys: Tensor
    sees: Sees

    def tiles(self) -> Tiles:
        """With the pairs that count."""
        query, key = self.queries.unsqueeze(2), self.keys.unsqueeze(1)
        seen = self.sees(query.clamp(min=0), key.clamp(min=0)) & (query >= 0) & (key >= 0)
        return Tiles(self.queries, self.keys, seen)


def blocks(length: int, size: int, keys: Callable[[int], Tensor], sees: Sees) -> list[Piece]:
    """Blocks of `size` neighbouring queries; block m meets `keys(m)`. Those of similar numbers of keys go together."""
    groups: dict[int, list[tuple[int, Tensor]]] = {}
    for block in range(-(-length // size)):
        met = keys(block)
        groups.setdefault(-(-len(met) // _STEP), []).append((block, met))
    pieces = []
    for group in groups.values():
        widest = max(len(met) for _, met in group)
        queries = torch.stack([torch.arange(block * size, (block + 1) * size) for block, _ in group])
        table = torch.full((len(group), widest), -1)
        for row, (_, met) in enumerate(group):
            table[row, : len(met)] = met
        pieces.append(_inside(queries, table, length, sees))
    return pieces


def with_own_block(length: int, size: int, before: Callable[[int], Tensor], sees: Sees) -> list[Piece]:
    """Blocks of neighbouring queries; block m meets `before(m)`, all of it in earlier blocks, and itself."""
    return blocks(length, size, lambda m: torch.cat([before(m), torch.arange(m * size, (m + 1) * size)]), sees)


def residues(length: int, dilation: int, window: int | None, sees: Sees) -> list[Piece]:
    """Positions of one residue by the dilation are neighbours here: blocks of them, each with its halo.

    window: keys that a query meets in its class, None for all before it.
    """
    per_class = -(-length // dilation)
    size = min(_BLOCK, per_class)
    starts = range(0, per_class, size)
    if window is not None and window - 1 + size < per_class:
        return [_classes(starts, size, window - 1, dilation, length, sees)]
    return [_classes([start], size, min(start, (window or length) - 1), dilation, length, sees) for start in starts]


def _classes(starts: Sequence[int], size: int, halo: int, dilation: int, length: int, sees: Sees) -> Piece:
    first = torch.as_tensor(list(starts))[:, None, None]
    offset = torch.arange(dilation)[None, :, None]
    queries = (first + torch.arange(size)) * dilation + offset
    keys = (first + torch.arange(-halo, size)) * dilation + offset
    return _inside(queries.flatten(0, 1), keys.flatten(0, 1), length, sees)


def _inside(queries: Tensor, keys: Tensor, length: int, sees: Sees) -> Piece:
    """What lies outside of the sequence becomes -1."""
    queries, keys = (torch.where((x >= 0) & (x < length), x, -1) for x in (queries, keys))
    return Piece(queries, keys, sees)


def document_tiles(documents: Tensor, of: Callable[[int], Sequence[Tiles]]) -> list[Tiles]:
    """The tiles of every document in a batch [b t], whose positions are counted over all its rows: those of (b t).

    of: the tiles of a sequence of a length; asked for lengths in steps, so that few are made, and cut to what there is.
    """
    change = documents != documents.roll(1, 1)
    change[:, 0] = True
    starts = [*change.flatten().nonzero().flatten().tolist(), documents.numel()]
    groups: dict[tuple[int, ...], list[Tiles]] = {}
    for start, end in pairwise(starts):
        for each in of(-(-(end - start) // _STEP) * _STEP):
            cut = _cut(Tiles(*(x.to(documents.device) for x in each)), end - start, start)
            if len(cut.seen):
                groups.setdefault(tuple(each.seen.shape[1:]), []).append(cut)
    return [Tiles(*(torch.cat(parts) for parts in zip(*group, strict=True))) for group in groups.values()]


def _cut(tiles: Tiles, length: int, start: int) -> Tiles:
    """The tiles of the first `length` positions, moved to `start`."""
    queries, keys = ((x >= 0) & (x < length) for x in tiles[:2])
    seen = tiles.seen & queries.unsqueeze(2) & keys.unsqueeze(1)
    moved = (torch.where(inside, x + start, -1) for inside, x in zip((queries, keys), tiles[:2], strict=True))
    used = queries.any(1)
    return Tiles(*(x[used] for x in (*moved, seen)))
