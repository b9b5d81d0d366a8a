"""Attention in fixed patterns of pairs, at a cost that follows the pattern: Longformer, Sparse Transformer, BigBird."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.init import Linear
from windtunnel.kernels import tiled
from windtunnel.kernels.attention import attention, attention_maps, attention_scores
from windtunnel.kernels.blocked import LONGEST
from windtunnel.layer import Context, Cost
from windtunnel.mixers.attention import attend, core_cost, resolve_head_width
from windtunnel.mixers.base import AttendingLayer, Buffers, KeyValues, Mixer, merge_heads, split_heads
from windtunnel.mixers.kept import Kept, Slots
from windtunnel.mixers.patterns import Pattern, Sliding, multiplied, pairs, tiles
from windtunnel.mixers.prefix import PrefixLayer
from windtunnel.mixers.tiling import document_tiles
from windtunnel.positions import Rope


class SparseAttention(Mixer):
    """softmax(scale q kᵀ over the pairs of a pattern) v; what `patterns` allows is all that is computed in long texts.

    patterns: one for all heads, or one for each. head_width, kv_heads, rope, scale and bias are as in `Attention`.
    own_prefix: global tokens (`Sliding.prefix`) attend by queries, keys and values of their own.
    """

    heads: int
    patterns: tuple[Pattern, ...]
    head_width: int | None = None
    kv_heads: int | None = None
    rope: Rope | None = None
    scale: float | None = None
    bias: bool = False
    own_prefix: bool = False

    def validate(self) -> None:
        self.require(self.heads > 0, f"heads must be positive, got {self.heads}")
        groups = self.kv_heads or self.heads
        self.require(self.heads % groups == 0, f"kv_heads {groups} does not divide heads {self.heads}")
        count = len(self.patterns)
        self.require(
            count in (1, self.heads), f"patterns: expected one, or one for each of {self.heads} heads, got {count}"
        )
        sizes = {each.prefix if isinstance(each, Sliding) else 0 for each in self.patterns}
        self.require(
            not self.own_prefix or (len(sizes) == 1 and min(sizes) > 1),
            f"own_prefix: needs one prefix of at least 2 tokens in the sliding windows of all heads (a single one has "
            f"nothing to choose from, so that its projections would never learn), got {sorted(sizes)}",
        )

    def build(self, width: int) -> "SparseAttentionLayer":
        return SparseAttentionLayer(self, width)


class SparseState(NamedTuple):
    """Keys [b g s k] and values [b g s k] of those tokens that the patterns may still see, in their order.

    own_keys, own_values: those of the global tokens' own projections, while such tokens may follow; else empty.
    """

    keys: Tensor
    values: Tensor
    own_keys: Tensor
    own_values: Tensor


class SparseAttentionLayer(AttendingLayer):
    mechanism = "attention projections"

    def __init__(self, spec: SparseAttention, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.heads, self.kv_heads = spec.heads, spec.kv_heads or spec.heads
        self.head_width = resolve_head_width(spec, width, spec.heads, spec.head_width, spec.rope)
        self.scale = spec.scale if spec.scale is not None else 1 / math.sqrt(self.head_width)
        self.q = Linear(width, self.heads * self.head_width, "reads", spec.bias)
        self.k = Linear(width, self.kv_heads * self.head_width, "reads", spec.bias)
        self.v = Linear(width, self.kv_heads * self.head_width, "reads", spec.bias)
        self.o = Linear(self.heads * self.head_width, width, "writes", spec.bias)
        self.groups = _groups(spec)
        self.prefix: PrefixLayer | None = None
        first = spec.patterns[0]
        if spec.own_prefix and isinstance(first, Sliding):
            sizes = (self.heads, self.kv_heads, self.head_width)
            self.prefix = PrefixLayer(width, first.prefix, *sizes, self.scale, spec.bias, spec.rope)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        if isinstance(state, Slots):
            return self._in_slots(x, context, state), state
        seen = context.reach - x.shape[1] if state is not None else 0
        if seen and x.shape[1] > LONGEST:
            return self._in_turns(x, context, state)
        q, k, v = self.project(x, context)
        past, own = KeyValues(k, v), None
        if state is not None:
            past, own = KeyValues(*state[:2]).extend(k, v, context), KeyValues(*state[2:])
        mixed = self._onward(q, past, seen) if seen else self.whole(q, k, v, context)
        if self.prefix is not None:
            mixed, own = self.prefix(x, mixed, context, own, seen)
        return self.o(merge_heads(mixed)), self._after(past, own, seen, context.reach)

    def _in_turns(self, x: Tensor, context: Context, state: SparseState) -> tuple[Tensor, SparseState]:
        """A long continuation by parts, so that no table of it with all keys is made."""
        parts, first = [], context.reach - x.shape[1]
        for part in torch.split(x, LONGEST, 1):
            reach = first + part.shape[1]
            positions = torch.arange(first, reach, device=x.device)
            y, state = self(part, Context(positions, reach=reach), state)
            parts.append(y)
            first = reach
        return torch.cat(parts, 1), state

    def _in_slots(self, x: Tensor, context: Context, state: Slots) -> Tensor:
        """Rows that may stand at different places, over buffers that are written in place."""
        q, k, v = self.project(x, context)
        kept = self._kept(0)
        state.extend(k, v, kept, context)
        past, held = state.visible(kept)
        query, key = context.positions.view(-1, x.shape[1], 1), held.unsqueeze(1)  # b t 1, b 1 s
        masks = torch.stack([each.sees(query, key.clamp(min=0)) for each in self.spec.patterns], 1)  # b h t s
        mixed = attention(q, *past.to(q.dtype), self.scale, masks & (key >= 0).unsqueeze(1))
        if self.prefix is not None:
            mixed = self.prefix.in_slots(x, mixed, context, state.own)
        y: Tensor = self.o(merge_heads(mixed))
        return y

    def project(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [b h t k], keys and values [b g t k], positions applied."""
        q, k, v = split_heads(self.q(x), self.heads), split_heads(self.k(x), self.kv_heads), self.v(x)
        if self.spec.rope is not None:
            q, k = self.spec.rope.apply(context, q, k)
        return q, k, split_heads(v, self.kv_heads)

    def whole(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """Everything from the first token on, group by group; b h t k."""
        if len(self.groups) == 1:
            return self._group(self.groups[0][0], q, k, v, context)
        repeats = self.heads // self.kv_heads
        parts = []
        for pattern, heads in self.groups:
            shared = [head // repeats for head in heads]
            parts.append(self._group(pattern, q[:, heads], k[:, shared], v[:, shared], context))
        order = [head for _, heads in self.groups for head in heads]
        return torch.cat(parts, 1)[:, [order.index(head) for head in range(self.heads)]]

    def _group(self, pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """A window goes by residues, a short sequence by a mask, anything else by tiles."""
        window = pattern.sliding()
        if window is not None:
            return dilated(context, q, KeyValues(k, v), self.scale, window)
        if q.shape[2] <= LONGEST:
            return attention(q, k, v, self.scale, pattern_mask(pattern, context), causal=True)
        if context.documents is None:
            cut = [tiled.Tiles(*(x.to(q.device) for x in each)) for each in tiles(pattern, q.shape[2])]
            return tiled.tiled_attention(q, k, v, self.scale, cut)
        name = ("tiles", pattern)
        if name not in context.tables:
            context.tables[name] = document_tiles(context.documents, lambda length: tiles(pattern, length))
        q, k, v = (x.transpose(0, 1).flatten(1, 2).unsqueeze(0) for x in (q, k, v))  # 1 h (b t) k
        mixed = tiled.tiled_attention(q, k, v, self.scale, context.tables[name])
        return mixed.view(mixed.shape[1], *context.documents.shape, -1).transpose(0, 1)

    def _onward(self, q: Tensor, past: KeyValues, seen: int) -> Tensor:
        """The newest queries over what is kept and themselves, by a mask of their positions."""
        t = q.shape[2]
        keys = torch.cat([self._positions(seen, q.device), torch.arange(seen, seen + t, device=q.device)])
        query = torch.arange(seen, seen + t, device=q.device)[:, None]
        masks = torch.stack([pattern.sees(query, keys) for pattern in self.spec.patterns])  # h t s
        return attention(q, *past, self.scale, masks.unsqueeze(0))

    def _kept(self, seen: int) -> Kept:
        return Kept.union(pattern.kept(seen) for pattern in self.spec.patterns)

    def _positions(self, seen: int, device: torch.device) -> Tensor:
        """[s], those of the keys in a state after `seen` tokens."""
        every = torch.arange(seen, device=device)
        return every[self._kept(seen).of(every)]

    def _after(self, past: KeyValues, own: KeyValues | None, before: int, seen: int) -> SparseState | None:
        """The state after `seen` tokens; past holds what was kept of those `before`, and the new ones."""
        if own is None:
            return None
        old = self._positions(before, past.keys.device)
        kept = self._kept(seen).of(torch.cat([old, torch.arange(before, seen, device=old.device)]))
        return SparseState(past.keys[:, :, kept], past.values[:, :, kept], *own)

    def attention_scores(self, x: Tensor, context: Context) -> Tensor:
        q, k, _ = self.project(x, context)
        return attention_scores(q, k, self.scale)

    def attention_maps(self, x: Tensor, context: Context) -> Tensor:
        q, k, _ = self.project(x, context)
        masks = [pattern_mask(pattern, context) for pattern in self.spec.patterns]
        maps = attention_maps(q, k, self.scale, torch.cat(masks, 1))
        return maps if self.prefix is None else self.prefix.attention_maps(x, maps, context)

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> SparseState:
        empty = torch.empty(batch, self.kv_heads, 0, self.head_width, device=device, dtype=dtype)
        return SparseState(empty, empty, empty, empty)

    def reserve(self, batch: int, device: torch.device, dtype: torch.dtype, capacity: int, chunk: int) -> Any:
        none, kept = KeyValues(*self.initial_state(batch, device, dtype)[:2]), self._kept(0)
        reaches = [pattern.reach for pattern in self.spec.patterns]
        near = capacity if None in reaches else min(capacity, max(reach or 0 for reach in reaches) + chunk)
        far = int(kept.rank(torch.tensor(capacity, device="cpu"))) + 1
        own = self.prefix.size + 1 if self.prefix is not None else 1
        return Slots(*(Buffers.empty(none, size) for size in (near, far, own)))

    def costs(self, length: int) -> list[Cost]:
        projections = sum(linear.operations for linear in (self.q, self.k, self.v, self.o))
        rotary = 3.0 * (self.heads + self.kv_heads) * self.head_width if self.spec.rope is not None else 0.0
        cores = [pattern_cost(pattern, len(heads), self.head_width, length) for pattern, heads in self.groups]
        own = self.prefix.costs(length) if self.prefix is not None else []
        return [Cost.matmul("attention projections", projections, rotary), *cores, *own]

    def state_bytes(self, length: int, element: int = 4) -> int:
        own = self.prefix.kept(length) if self.prefix is not None else 0
        return (self._kept(length).count(length) + own) * self.kv_heads * 2 * self.head_width * element


def _groups(spec: SparseAttention) -> list[tuple[Pattern, list[int]]]:
    """Each pattern and its heads."""
    patterns = spec.patterns if len(spec.patterns) > 1 else spec.patterns * spec.heads
    heads: dict[Pattern, list[int]] = {}
    for head, pattern in enumerate(patterns):
        heads.setdefault(pattern, []).append(head)
    return list(heads.items())


def pattern_mask(pattern: Pattern, context: Context) -> Tensor:
    """[1 1 t t] or [b 1 t t], True where a query may attend, by the definition; documents begin at 0 each."""
    name = ("mask", pattern)
    if name not in context.tables:
        at = local_positions(context)  # b t or 1 t
        mask = pattern.sees(at.unsqueeze(2), at.unsqueeze(1))
        if context.documents is not None:
            mask = mask & (context.documents.unsqueeze(2) == context.documents.unsqueeze(1))
        context.tables[name] = mask.unsqueeze(1)
    table: Tensor = context.tables[name]
    return table


def local_positions(context: Context) -> Tensor:
    """[b t], or [1 t] without documents: positions in the document, of a call that begins at its first token."""
    every = torch.arange(len(context.positions), device=context.positions.device).unsqueeze(0)
    if context.starts is None:
        return every
    return every - torch.where(context.starts, every, 0).cummax(1).values


def dilated(context: Context, q: Tensor, past: KeyValues, scale: float, pattern: Sliding) -> Tensor:
    """A window over every d-th key: positions of one residue by d become rows of their own, in which it is plain."""
    d, t = pattern.dilation, q.shape[2]
    if d == 1:
        return attend(context, q, past, scale, pattern.window)
    name = ("residues", d)
    if name not in context.tables:
        documents = context.documents
        apart = None if documents is None else _apart(documents[:, None, :, None], d)[:, 0, :, 0]
        positions = torch.arange(-(-t // d), device=q.device)
        context.tables[name] = Context(positions, apart)
    mixed = attend(context.tables[name], _apart(q, d), KeyValues(*(_apart(x, d) for x in past)), scale, pattern.window)
    mixed = mixed.view(-1, d, *mixed.shape[1:]).permute(0, 2, 3, 1, 4)  # b h t/d d k
    return mixed.flatten(2, 3)[:, :, :t]


def _apart(x: Tensor, d: int) -> Tensor:
    """[b h t k] to [(b d) h t/d k], the length filled up to a multiple of d."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % d))
    return x.view(*x.shape[:2], -1, d, x.shape[3]).permute(0, 3, 1, 2, 4).flatten(0, 1)


def pattern_cost(pattern: Pattern, heads: int, head_width: int, length: int) -> Cost:
    """Scores and weighted values of one group of heads, by the route that `SparseAttentionLayer` takes."""
    pair, attended = 4.0 * heads * head_width, pairs(pattern, length) / length
    cost = Cost("attention core", pair * attended, pair * length, elementwise=5.0 * heads * attended)
    window = pattern.sliding()
    if window is not None:
        per_class = -(-length // window.dilation)
        filled = per_class * window.dilation / length
        core = core_cost(heads, head_width, head_width, per_class, window.window)
        stored = core.stored and cost._replace(hardware=core.stored.hardware * filled)
        return cost._replace(hardware=core.hardware * filled, recomputed=core.recomputed * filled, stored=stored)
    if length > LONGEST:
        executed = pair * multiplied(pattern, length) / length
        return cost._replace(hardware=executed, recomputed=executed / 2)
    core = core_cost(heads, head_width, head_width, length)
    stored = core.stored and cost._replace(hardware=core.stored.hardware)
    return cost._replace(hardware=pair * length, recomputed=pair * length / 2, stored=stored)
