"""FlashAttention 1 and 2 to be read: exact attention by tiles, forward and backward, that counts what it moves.

Dao et al. 2022 (arXiv 2205.14135), algorithms 1 and 4; Dao 2023 (arXiv 2307.08691), algorithms 1 and 2. A softmax over
keys that come tile by tile keeps a running maximum m and a running sum l; what was summed before is scaled by
exp(m_old - m_new). The backward pass forms each tile of weights again from m and l, or from L = m + log l:

    P = exp(scale q k^T - L),  D = rowsum(dy y),  dS = P (dy v^T - D),
    dv += P^T dy,  dq += scale dS k,  dk += scale dS^T q

The first version takes keys in its outer loop, so that every tile of queries reads and writes its unfinished result
once a key tile, always normalised. The second takes queries outside: the result stays on the chip, unnormalised until
the end, and L alone is kept. (Its printed algorithm has the rescaling inverted and D of length d; the above is right.)

These run in Python for their meaning and their counts. What is fast, and used, is SDPA: on CUDA that is FlashAttention
2, on a CPU torch's own flash kernel, which forms scores again in the backward pass too (kernels/attention.py); short
training on a CPU keeps its maps instead (kernels/blocked.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Version = Literal[1, 2]


@dataclass
class Memory:
    """Elements that go between the large slow memory and the chip. Zeros to start from are not counted."""

    loaded: int = 0
    stored: int = 0

    def load(self, x: Tensor) -> Tensor:
        """x on the chip."""
        self.loaded += x.numel()
        return x

    def store(self, target: Tensor, x: Tensor) -> None:
        """x back where it belongs."""
        self.stored += x.numel()
        target.copy_(x)


class Tiling(NamedTuple):
    """t queries and s keys in tiles of `rows` and `columns`; causal order aligns the last query with the last key."""

    queries: int
    keys: int
    rows: int
    columns: int
    causal: bool

    def query_tiles(self, first: int | None = None) -> list[slice]:
        """Tiles of queries, those that see the key `first` or one after it."""
        passed = 0 if first is None or not self.causal else max(0, first - (self.keys - self.queries))
        start = passed - passed % self.rows
        return [slice(i, min(i + self.rows, self.queries)) for i in range(start, self.queries, self.rows)]

    def key_tiles(self, last: int | None = None) -> list[slice]:
        """Tiles of keys, those that the query before `last` sees."""
        end = self.keys if last is None or not self.causal else last + self.keys - self.queries
        return [slice(j, min(j + self.columns, self.keys)) for j in range(0, end, self.columns)]

    def hidden(self, queries: slice, keys: slice, device: torch.device) -> Tensor | None:
        """True for the pairs of a tile that causal order hides; None where it hides none."""
        before = self.keys - self.queries
        if not self.causal or keys.stop <= queries.start + before + 1:
            return None
        at = torch.arange(queries.start, queries.stop, device=device)[:, None] + before
        return torch.arange(keys.start, keys.stop, device=device) > at


def published_tiles(width: int, chip: int) -> tuple[int, int]:
    """Rows and columns of the first version's tiles for a chip of so many elements: min(ceil(M/4d), d), ceil(M/4d)."""
    columns = math.ceil(chip / (4 * width))
    return min(columns, width), columns


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    causal: bool = False,
    version: Version = 2,
    tile: tuple[int, int] = (64, 64),
    memory: Memory | None = None,
) -> Tensor:
    """Attention of q [b h t k] over k [b g s k] and v [b g s v]; b h t v. A query that sees no key gives zeros.

    tile: queries and keys of a tile. memory: counts what both passes move. Grouped heads are repeated.
    """
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    tiling = Tiling(q.shape[2], k.shape[2], *tile, causal)
    return _Flash.apply(q, k, v, scale, tiling, version, memory or Memory())  # type: ignore[no-any-return, no-untyped-call]


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, tiling: Tiling, version: Version, memory: Memory
    ) -> Tensor:
        y, *kept = (forward_1 if version == 1 else forward_2)(q, k, v, scale, tiling, memory)
        ctx.scale, ctx.tiling, ctx.version, ctx.memory = scale, tiling, version, memory
        ctx.save_for_backward(q, k, v, y, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, *kept = ctx.saved_tensors
        run: Callable[..., tuple[Tensor, Tensor, Tensor]] = backward_1 if ctx.version == 1 else backward_2
        return (*run(q, k, v, y, *kept, dy, ctx.scale, ctx.tiling, ctx.memory), None, None, None, None)


def forward_1(
    q: Tensor, k: Tensor, v: Tensor, scale: float, tiling: Tiling, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """The first version: y [b h t v], and m and l [b h t] for the backward pass."""
    y = q.new_zeros(*q.shape[:3], v.shape[-1])
    largest, mass = q.new_full(q.shape[:3], float("-inf")), q.new_zeros(q.shape[:3])
    for j in tiling.key_tiles():
        keys, values = memory.load(k[:, :, j]), memory.load(v[:, :, j])
        for i in tiling.query_tiles(j.start):
            query, before = memory.load(q[:, :, i]), memory.load(y[:, :, i])
            m, sum_before = memory.load(largest[:, :, i]), memory.load(mass[:, :, i])
            scores = _scores(query, keys, scale, tiling.hidden(i, j, q.device))
            m_new = torch.maximum(m, scores.amax(-1))
            weights, shrunk = _exp(scores, m_new.unsqueeze(-1)), sum_before * _exp(m, m_new)
            sum_new = shrunk + weights.sum(-1)
            mixed = shrunk.unsqueeze(-1) * before + weights @ values
            memory.store(y[:, :, i], mixed / sum_new.clamp(min=_TINY).unsqueeze(-1))
            memory.store(mass[:, :, i], sum_new)
            memory.store(largest[:, :, i], m_new)
    return y, largest, mass


def backward_1(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    largest: Tensor,
    mass: Tensor,
    dy: Tensor,
    scale: float,
    tiling: Tiling,
    memory: Memory,
) -> tuple[Tensor, Tensor, Tensor]:
    """The first version: dq, dk, dv; D is formed again in every tile."""
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    for j in tiling.key_tiles():
        keys, values = memory.load(k[:, :, j]), memory.load(v[:, :, j])
        dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
        for i in tiling.query_tiles(j.start):
            query, slopes, mixed = (memory.load(x[:, :, i]) for x in (q, dy, y))
            m, total = memory.load(largest[:, :, i]), memory.load(mass[:, :, i])
            scores = _scores(query, keys, scale, tiling.hidden(i, j, q.device))
            weights = _exp(scores, m.unsqueeze(-1)) / total.clamp(min=_TINY).unsqueeze(-1)
            dscores = weights * (slopes @ values.mT - (slopes * mixed).sum(-1, keepdim=True))
            dvalues += weights.mT @ slopes
            memory.store(dq[:, :, i], memory.load(dq[:, :, i]) + scale * (dscores @ keys))
            dkeys += scale * (dscores.mT @ query)
        memory.store(dk[:, :, j], dkeys)
        memory.store(dv[:, :, j], dvalues)
    return dq, dk, dv


def forward_2(q: Tensor, k: Tensor, v: Tensor, scale: float, tiling: Tiling, memory: Memory) -> tuple[Tensor, Tensor]:
    """The second version: y [b h t v], and L [b h t], -inf where a query sees nothing."""
    y, total = q.new_empty(*q.shape[:3], v.shape[-1]), q.new_empty(q.shape[:3])
    for i in tiling.query_tiles():
        query = memory.load(q[:, :, i])
        mixed = query.new_zeros(*query.shape[:3], v.shape[-1])
        m, mass = query.new_full(query.shape[:3], float("-inf")), query.new_zeros(query.shape[:3])
        for j in tiling.key_tiles(i.stop):
            keys, values = memory.load(k[:, :, j]), memory.load(v[:, :, j])
            scores = _scores(query, keys, scale, tiling.hidden(i, j, q.device))
            m_new = torch.maximum(m, scores.amax(-1))
            weights, shrink = _exp(scores, m_new.unsqueeze(-1)), _exp(m, m_new)
            mass = shrink * mass + weights.sum(-1)
            mixed = shrink.unsqueeze(-1) * mixed + weights @ values
            m = m_new
        memory.store(y[:, :, i], mixed / mass.clamp(min=_TINY).unsqueeze(-1))
        memory.store(total[:, :, i], m + mass.log())
    return y, total


def backward_2(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    total: Tensor,
    dy: Tensor,
    scale: float,
    tiling: Tiling,
    memory: Memory,
) -> tuple[Tensor, Tensor, Tensor]:
    """The second version: dq, dk, dv; D is formed once. Kernels that run key tiles at once add to dq atomically."""
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    drop = q.new_empty(q.shape[:3])
    memory.store(drop, (memory.load(dy) * memory.load(y)).sum(-1))
    for j in tiling.key_tiles():
        keys, values = memory.load(k[:, :, j]), memory.load(v[:, :, j])
        dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
        for i in tiling.query_tiles(j.start):
            query, slopes = memory.load(q[:, :, i]), memory.load(dy[:, :, i])
            level, less = memory.load(total[:, :, i]), memory.load(drop[:, :, i])
            weights = _exp(_scores(query, keys, scale, tiling.hidden(i, j, q.device)), level.unsqueeze(-1))
            dvalues += weights.mT @ slopes
            dscores = weights * (slopes @ values.mT - less.unsqueeze(-1))
            memory.store(dq[:, :, i], memory.load(dq[:, :, i]) + scale * (dscores @ keys))
            dkeys += scale * (dscores.mT @ query)
        memory.store(dk[:, :, j], dkeys)
        memory.store(dv[:, :, j], dvalues)
    return dq, dk, dv


_TINY = 1e-30  # a query that sees nothing has a mass of 0


def _scores(query: Tensor, keys: Tensor, scale: float, hidden: Tensor | None) -> Tensor:
    scores = scale * (query @ keys.mT)
    return scores if hidden is None else scores.masked_fill(hidden, float("-inf"))


def _exp(x: Tensor, level: Tensor) -> Tensor:
    """exp(x - level), 0 where x is -inf, whatever the level."""
    return (x - level.nan_to_num(neginf=0.0)).exp()
