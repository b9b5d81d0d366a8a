"""Which keys a query may see, as values: fixed sets of pairs, all of them causal and with the query's own key.

Positions count from the start of a document. i is a query's, j a key's, b a block's size, l a stride.
"""

import functools
import random
from typing import Literal

import torch
from torch import Tensor

from windtunnel.kernels.tiled import Tiles
from windtunnel.mixers.kept import Kept
from windtunnel.mixers.tiling import Piece, blocks, residues, with_own_block
from windtunnel.spec import Spec


class Pattern(Spec):
    """A set of pairs. What is asked of it must agree, which the tests hold to `sees`."""

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """The definition: True where a query may see a key; positions that broadcast."""
        raise NotImplementedError

    def rows(self, query: Tensor) -> Tensor:
        """How many keys each query sees, in closed form."""
        raise NotImplementedError

    def kept(self, seen: int) -> Kept:
        """What a query after the first `seen` tokens may still see."""
        raise NotImplementedError

    @property
    def reach(self) -> int | None:
        """How far back a query sees what is not kept for good; None is without limit."""
        raise NotImplementedError

    def pieces(self, length: int) -> list[Piece]:
        """Blocks of queries and keys that hold every pair of the first `length` positions exactly once."""
        raise NotImplementedError

    def sliding(self) -> "Sliding | None":
        """The same set as a window without a prefix, where it is one."""
        return None


class Sliding(Pattern):
    """Every d-th key of those before, `window` of them, and a prefix: Longformer's (Beltagy et al. 2020, section 3.1).

        j <= i  and  ((i - j) mod d = 0 and (i - j)/d < window, or j < prefix)

    window: keys with the query's own; None is no limit. dilation: d, the distance between keys; 1 leaves none out.
    prefix: global tokens, which every query sees. That they see everything before them follows from it.
    """

    window: int | None
    dilation: int = 1
    prefix: int = 0

    def validate(self) -> None:
        self.require(self.window is None or self.window > 0, f"window must be positive or None, got {self.window}")
        self.require(self.dilation > 0, f"dilation must be at least 1 (1 leaves no key out), got {self.dilation}")
        self.require(self.prefix >= 0, f"prefix must not be negative, got {self.prefix}")
        self.require(
            self.window != 1 or self.dilation == 1, f"a window of 1 has no distances to dilate by {self.dilation}"
        )
        self.require(
            self.window is not None or self.dilation > 1 or self.prefix == 0,
            f"a prefix of {self.prefix} adds nothing to a window without limit and dilation",
        )

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((key < self.prefix) | self._in_window(query, key))

    def _in_window(self, query: Tensor, key: Tensor) -> Tensor:
        distance = query - key
        near = (distance >= 0) & (distance % self.dilation == 0)
        return near if self.window is None else near & (distance < self.window * self.dilation)

    def rows(self, query: Tensor) -> Tensor:
        steps = query // self.dilation + 1
        steps = steps if self.window is None else steps.clamp(max=self.window)
        first = ((query - self.prefix) // self.dilation + 1).clamp(min=0)  # steps that lead into the prefix start here
        inside = (steps - first).clamp(min=0) if self.prefix else 0
        return steps + (query + 1).clamp(max=self.prefix) - inside

    def kept(self, seen: int) -> Kept:
        return Kept(self.prefix, 0 if self.reach is None else max(0, seen - self.reach))

    @property
    def reach(self) -> int | None:
        return None if self.window is None else (self.window - 1) * self.dilation

    def pieces(self, length: int) -> list[Piece]:
        window = residues(length, self.dilation, self.window, lambda i, j: self._in_window(i, j) & (j >= self.prefix))
        prefix = blocks(
            length, 128, lambda m: torch.arange(min(self.prefix, length)), lambda i, j: (j <= i) & (j < self.prefix)
        )
        return window + (prefix if self.prefix else [])

    def sliding(self) -> "Sliding | None":
        return self if self.prefix == 0 else None


class Strided(Pattern):
    """The last l keys, and every l-th key before them: Sparse Transformer's strided pattern (Child et al. 2019, eq. 5).

    part: the band alone, the stride alone, or both in one head. The paper's formula gives the band l + 1 keys, its
    code l, which is what is done here; either way two layers reach everything.
    """

    stride: int
    part: Literal["both", "band", "stride"] = "both"

    def validate(self) -> None:
        self.require(self.stride > 1, f"stride must be at least 2, got {self.stride}")

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        distance = query - key
        band, stride = distance < self.stride, distance % self.stride == 0
        return (distance >= 0) & {"both": band | stride, "band": band, "stride": stride}[self.part]

    def rows(self, query: Tensor) -> Tensor:
        band, stride = (query + 1).clamp(max=self.stride), query // self.stride + 1
        return {"both": band + stride - 1, "band": band, "stride": stride}[self.part]

    def kept(self, seen: int) -> Kept:
        return Kept(tail=0 if self.reach is None else max(0, seen - self.reach))

    @property
    def reach(self) -> int | None:
        return self.stride - 1 if self.part == "band" else None

    def pieces(self, length: int) -> list[Piece]:
        band, stride = Sliding(window=self.stride), Sliding(window=None, dilation=self.stride)
        if self.part != "both":
            return (band if self.part == "band" else stride).pieces(length)
        farther = residues(length, self.stride, None, lambda i, j: (i > j) & ((i - j) % self.stride == 0))
        return band.pieces(length) + farther

    def sliding(self) -> Sliding | None:
        whole = {"band": Sliding(window=self.stride), "stride": Sliding(window=None, dilation=self.stride)}
        return whole.get(self.part)


class Fixed(Pattern):
    """The block of l that a query is in, and c columns of every block: Sparse Transformer's fixed pattern (eq. 6).

        floor(j / l) = floor(i / l),  or  first <= j mod l < first + c

    stride: l. columns: c. first: None is l - c, the last columns; heads may take different ones. part: the block alone
    ("local"), the columns alone ("summary"), or both in one head. The columns alone would leave the first queries
    without any key, so a query always sees its own.
    """

    stride: int
    columns: int
    first: int | None = None
    part: Literal["both", "local", "summary"] = "both"

    def validate(self) -> None:
        self.require(self.stride > 1, f"stride must be at least 2, got {self.stride}")
        inside = 0 < self.columns <= self.stride
        self.require(inside, f"columns {self.columns} must be between 1 and the stride {self.stride}")
        fits = 0 <= self._first <= self.stride - self.columns
        self.require(fits, f"first {self.first}: {self.columns} columns from there leave the stride of {self.stride}")

    @property
    def _first(self) -> int:
        return self.stride - self.columns if self.first is None else self.first

    def _column(self, key: Tensor) -> Tensor:
        return (key % self.stride >= self._first) & (key % self.stride < self._first + self.columns)

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        local, summary = query // self.stride == key // self.stride, self._column(key) | (query == key)
        return (key <= query) & {"both": local | summary, "local": local, "summary": summary}[self.part]

    def rows(self, query: Tensor) -> Tensor:
        within, before = query % self.stride, query // self.stride * self.columns
        summary = before + (within - self._first + 1).clamp(0, self.columns) + ~self._column(query)
        return {"both": before + within + 1, "local": within + 1, "summary": summary}[self.part]

    def kept(self, seen: int) -> Kept:
        columns = ((self.stride, self._first, self.columns),)
        block = seen // self.stride * self.stride
        whole = Kept(tail=block, columns=columns)
        return {"both": whole, "local": Kept(tail=block), "summary": Kept(tail=seen, columns=columns)}[self.part]

    @property
    def reach(self) -> int | None:
        return 0 if self.part == "summary" else self.stride - 1

    def pieces(self, length: int) -> list[Piece]:
        if self.part == "local":
            return blocks(
                length, self.stride, lambda m: torch.arange(m * self.stride, (m + 1) * self.stride), self.sees
            )
        return with_own_block(length, self.stride, self._before, self.sees)

    def _before(self, block: int) -> Tensor:
        """Summary columns of the blocks before."""
        columns = torch.arange(self._first, self._first + self.columns)
        return (torch.arange(block).unsqueeze(1) * self.stride + columns).flatten()


class BigBird(Pattern):
    """Whole blocks: the first ones, a window of them, and some at random (Zaheer et al. 2020, arXiv 2007.14062).

    block: b. first: global blocks at the start, which everybody sees. window: blocks with the query's own and as many
    on either side; only those before it count here, so 3 is the own block and one before. chosen: random blocks of each
    query block, without the others; drawn from (seed, index of the query block) among those strictly before the
    window, so that neither the length nor later tokens have a say. That causal form is ours; the paper's is not causal.
    """

    block: int = 64
    first: int = 2
    window: int = 3
    chosen: int = 3
    seed: int = 0

    def validate(self) -> None:
        self.require(self.block > 0, f"block must be positive, got {self.block}")
        self.require(self.window > 0 and self.window % 2 == 1, f"window must be odd and positive, got {self.window}")
        for name in ("first", "chosen"):
            value = getattr(self, name)
            self.require(value >= 0, f"{name} must not be negative, got {value}")

    @property
    def _side(self) -> int:
        return self.window // 2

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        own, other = query // self.block, key // self.block
        chosen = self._table(int(own.max()) + 1).to(own.device)[own]  # ... r
        picked = (chosen == other.unsqueeze(-1)).any(-1)
        return (key <= query) & ((other < self.first) | (own - other <= self._side) | picked)

    def rows(self, query: Tensor) -> Tensor:
        own = query // self.block
        return (self._earlier(own)) * self.block + query % self.block + 1

    def _earlier(self, own: Tensor) -> Tensor:
        """How many blocks before its own a query block sees."""
        free = (own - self._side - self.first).clamp(min=0)  # neither global nor in the window
        return torch.minimum(own, own - free + free.clamp(max=self.chosen))

    def kept(self, seen: int) -> Kept:
        """Any block may be drawn by a query block to come, so that random blocks keep everything."""
        if self.chosen:
            return Kept()
        return Kept(self.first * self.block, max(0, seen // self.block - self._side) * self.block)

    @property
    def reach(self) -> int | None:
        return None if self.chosen else (self._side + 1) * self.block - 1

    def pieces(self, length: int) -> list[Piece]:
        return with_own_block(length, self.block, self._before, self.sees)

    def _before(self, own: int) -> Tensor:
        near = range(max(0, own - self._side), own)
        others = {*range(min(self.first, own)), *near, *_drawn(self, own)}
        table = torch.tensor(sorted(others), dtype=torch.int64).unsqueeze(1)
        return (table * self.block + torch.arange(self.block)).flatten()

    def _table(self, count: int) -> Tensor:
        """The random blocks of the first `count` query blocks, [count max(1, r)], -1 where there is none."""
        return _chosen(self, 1 << (count - 1).bit_length())[:count]


@functools.lru_cache(maxsize=64)
def _chosen(pattern: BigBird, count: int) -> Tensor:
    table = torch.full((count, max(1, pattern.chosen)), -1)
    for own in range(count):
        for place, one in enumerate(_drawn(pattern, own)):
            table[own, place] = one
    return table


def _drawn(pattern: BigBird, own: int) -> list[int]:
    """Random blocks of one query block, among those that are neither global nor in its window."""
    free = range(pattern.first, max(pattern.first, own - pattern.window // 2))
    return random.Random(f"{pattern.seed}/{own}").sample(free, min(pattern.chosen, len(free)))


@functools.lru_cache(maxsize=256)
def tiles(pattern: Pattern, length: int) -> tuple[Tiles, ...]:
    """The tiles of the first `length` positions, every pair in exactly one."""
    return tuple(piece.tiles() for piece in pattern.pieces(length))


@functools.lru_cache(maxsize=256)
def multiplied(pattern: Pattern, length: int) -> int:
    """Pairs whose score is computed where `tiles` are used, counted or not."""
    return sum(piece.queries.numel() * piece.keys.shape[1] for piece in pattern.pieces(length))


@functools.lru_cache(maxsize=256)
def pairs(pattern: Pattern, length: int) -> int:
    """Pairs of the first `length` positions that count."""
    return int(pattern.rows(torch.arange(length, device="cpu")).sum())
