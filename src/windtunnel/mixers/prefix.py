"""Global tokens with projections of their own (Longformer, Beltagy et al. 2020, arXiv 2004.05150, section 3.1)."""

import torch
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels.attention import attention, attention_maps
from windtunnel.layer import Context, Cost, Layer
from windtunnel.mixers.attention import core_cost
from windtunnel.mixers.base import Buffers, KeyValues, split_heads
from windtunnel.mixers.kept import write
from windtunnel.positions import Rope


class PrefixLayer(Layer):
    """What the first `size` tokens of a document see, in place of what the common projections give them.

    A global token attends by its own query to the own keys and values of all before it, which in causal order are the
    global tokens before it alone; other tokens see it through the common projections. The paper starts these
    projections from the common ones, for it adds them to a trained model; here they have draws of their own.
    """

    def __init__(
        self,
        width: int,
        size: int,
        heads: int,
        kv_heads: int,
        head_width: int,
        scale: float,
        bias: bool,
        rope: Rope | None,
    ) -> None:
        super().__init__()
        self.size, self.heads, self.kv_heads, self.head_width = size, heads, kv_heads, head_width
        self.scale, self.rope = scale, rope
        self.q = Linear(width, heads * head_width, "reads", bias)
        self.k = Linear(width, kv_heads * head_width, "reads", bias)
        self.v = Linear(width, kv_heads * head_width, "reads", bias)

    def forward(
        self, x: Tensor, mixed: Tensor, context: Context, own: KeyValues | None, seen: int
    ) -> tuple[Tensor, KeyValues | None]:
        """mixed [b h t k] with the rows of global tokens replaced, and their keys and values while more may follow.

        own: those of earlier calls, None where no state is kept. seen: tokens of earlier calls.
        """
        if context.documents is not None:
            return self._by_documents(x, mixed, context), None
        new = min(max(self.size - seen, 0), x.shape[1])
        if not new:
            return mixed, own
        q, k, v = self._project(x[:, :new], context.positions[:new])
        past = KeyValues(k, v) if own is None else own.extend(k, v, context)
        mixed = torch.cat([attention(q, *past, self.scale, causal=True), mixed[:, :, new:]], 2)
        if own is not None:
            own = past if seen + x.shape[1] < self.size else past.last(0)
        return mixed, own

    def in_slots(self, x: Tensor, mixed: Tensor, context: Context, own: Buffers) -> Tensor:
        """The same for rows that may stand at different places; `own` is written in place."""
        positions = context.positions.expand(x.shape[0], -1)
        chosen = positions < self.size
        if not bool(chosen.any()):
            return mixed
        q, k, v = self._project(x, context.positions)
        write(own, k, v, positions, chosen, positions)
        held, query = own.positions[:, None, None], positions[:, None, :, None]
        past = KeyValues(own.keys, own.values).to(q.dtype)
        rows = attention(q, *past, self.scale, (held >= 0) & (held <= query))
        return torch.where(chosen[:, None, :, None], rows, mixed)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = split_heads(self.q(x), self.heads), split_heads(self.k(x), self.kv_heads)
        if self.rope is not None:
            q, k = self.rope.apply(Context(positions), q, k)
        return q, k, split_heads(self.v(x), self.kv_heads)

    def _by_documents(self, x: Tensor, mixed: Tensor, context: Context) -> Tensor:
        """Each document's first tokens as a row of their own; relative positions do not mind where it began."""
        at, inside = self._places(context)
        q, k, v = self._project(x.flatten(0, 1)[at], context.positions[: self.size])
        rows = attention(q, k, v, self.scale, causal=True).transpose(1, 2)  # n p h k
        flat = mixed.transpose(1, 2).flatten(0, 1)  # (b t) h k
        flat = flat.index_put((at[inside],), rows[inside])
        return flat.view(*x.shape[:2], *flat.shape[1:]).transpose(1, 2)

    def _places(self, context: Context) -> tuple[Tensor, Tensor]:
        """[n p]: where the first tokens of each document lie among (b t), and whether the document has so many."""
        starts, documents = context.starts, context.documents
        assert starts is not None
        assert documents is not None
        first = starts.clone()
        first[:, 0] = True
        begin = first.flatten().nonzero()  # n 1
        length = torch.diff(begin.flatten(), append=begin.new_tensor([documents.numel()]))[:, None]
        offset = torch.arange(min(self.size, documents.shape[1]), device=begin.device)
        return begin + torch.minimum(offset, length - 1), offset < length

    def attention_maps(self, x: Tensor, maps: Tensor, context: Context) -> Tensor:
        """The weights [b h t t] with the rows of global tokens replaced; without documents."""
        new = min(self.size, x.shape[1])
        q, k, _ = self._project(x[:, :new], context.positions[:new])
        maps = maps.clone()
        maps[:, :, :new] = 0
        maps[:, :, :new, :new] = attention_maps(q, k, self.scale, causal=True)
        return maps

    def kept(self, length: int) -> int:
        """Own keys in a state after `length` tokens."""
        return length if length < self.size else 0

    def idle_parameters(self) -> int:
        """Only the first tokens of a document meet these matrices."""
        return sum(linear.weight.numel() for linear in (self.q, self.k, self.v))

    def costs(self, length: int) -> list[Cost]:
        """The pairs are those of the rows that are replaced; what is computed in their place is hardware's alone."""
        met = min(self.size, length)
        operations = sum(linear.operations for linear in (self.q, self.k, self.v)) * met / length
        core = core_cost(self.heads, self.head_width, self.head_width, met)
        return [Cost.matmul("attention projections", operations), _replaced(core, met / length)]


def _replaced(core: Cost, share: float) -> Cost:
    again = core._replace(model=0.0, dense=core.dense * share, hardware=core.hardware * share, elementwise=0.0)
    stored = core.stored and _replaced(core.stored, share)
    return again._replace(recomputed=core.recomputed * share, stored=stored)
