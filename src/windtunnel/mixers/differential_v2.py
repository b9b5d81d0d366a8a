"""Differential attention, second version (Microsoft's "DIFF V2" blog post, 20 January 2026)."""

from typing import Any

import torch
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels.attention import attention, attention_maps, attention_scores
from windtunnel.layer import Context, Cost
from windtunnel.mixers.attention import core_cost, resolve_head_width, score_scale
from windtunnel.mixers.base import AttendingLayer, KeyValues, Mixer, merge_heads, split_heads
from windtunnel.positions import Rope


class DiffAttentionV2(Mixer):
    """y_i = attn(q₂ᵢ, k, v) - σ(λᵢ) attn(q₂ᵢ₊₁, k, v), with λ = W_λ x for each token and head.

    Twice the query heads of the baseline over its own keys and values; neither wider values nor head norm nor λ_init.
    The two queries of a pair are neighbours, so that they share a key/value head (halves of the heads would not, and
    are the post's own negative result). heads: pairs, as many as the baseline has heads. head_width: None is
    width / heads. kv_heads: None is heads. base_head_width: as `Attention` has it.
    """

    heads: int
    head_width: int | None = None
    kv_heads: int | None = None
    rope: Rope | None = None
    base_head_width: int | None = None

    def validate(self) -> None:
        self.require(self.heads > 0, f"heads must be positive, got {self.heads}")
        groups = self.kv_heads or self.heads
        self.require(self.heads % groups == 0, f"kv_heads {groups} does not divide heads {self.heads}")

    def build(self, width: int) -> "DiffAttentionV2Layer":
        return DiffAttentionV2Layer(self, width)


class DiffAttentionV2Layer(AttendingLayer):
    mechanism = "attention projections"

    def __init__(self, spec: DiffAttentionV2, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.heads, self.kv_heads = spec.heads, spec.kv_heads or spec.heads
        self.head_width = resolve_head_width(spec, width, spec.heads, spec.head_width, spec.rope)
        self.scale = score_scale(self.head_width, base=spec.base_head_width)
        self.q = Linear(width, 2 * self.heads * self.head_width, "reads")
        self.k = Linear(width, self.kv_heads * self.head_width, "reads")
        self.v = Linear(width, self.kv_heads * self.head_width, "reads")
        self.lambda_ = Linear(width, self.heads, "reads")
        self.o = Linear(self.heads * self.head_width, width, "writes")

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        (q, k), v = self.queries_and_keys(x, context), split_heads(self.v(x), self.kv_heads)
        past = state.extend(k, v, context) if state is not None else KeyValues(k, v)
        seen = past.visible(context).to(q.dtype)
        both = attention(q, seen.keys, seen.values, self.scale, seen.mask, seen.causal)  # b 2h t k
        mixed = _subtracted(both, self.current_lambda(x)).to(both.dtype)  # b h t k
        return self.o(merge_heads(mixed)), past if state is not None else None

    def queries_and_keys(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """[b 2h t k] and [b g t k], positions applied."""
        q, k = split_heads(self.q(x), 2 * self.heads), split_heads(self.k(x), self.kv_heads)
        if self.spec.rope is not None:
            q, k = self.spec.rope.apply(context, q, k)
        return q, k

    def current_lambda(self, x: Tensor) -> Tensor:
        """σ(λ) of every head and token in float32 or wider, b h t 1."""
        raw: Tensor = self.lambda_(x)  # b t h
        return raw.to(torch.promote_types(raw.dtype, torch.float32)).sigmoid().transpose(1, 2).unsqueeze(-1)

    def attention_scores(self, x: Tensor, context: Context) -> Tensor:
        return attention_scores(*self.queries_and_keys(x, context), self.scale)

    def attention_maps(self, x: Tensor, context: Context) -> Tensor:
        q, k = self.queries_and_keys(x, context)
        both = attention_maps(q, k, self.scale, context.mask(x.shape[1]), causal=True)  # b 2h t s
        return _subtracted(both, self.current_lambda(x))

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> KeyValues:
        empty = torch.empty(batch, self.kv_heads, 0, self.head_width, device=device, dtype=dtype)
        return KeyValues(empty, empty)

    def costs(self, length: int) -> list[Cost]:
        projections = sum(linear.operations for linear in (self.q, self.k, self.v, self.lambda_, self.o))
        rotary = 3.0 * (2 * self.heads + self.kv_heads) * self.head_width if self.spec.rope is not None else 0.0
        difference = Cost("attention core", elementwise=self.heads * (2.0 * self.head_width + 4.0))
        core = core_cost(2 * self.heads, self.head_width, self.head_width, length)
        return [Cost.matmul("attention projections", projections, rotary), core, difference]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return length * self.kv_heads * 2 * self.head_width * element


def _subtracted(both: Tensor, factor: Tensor) -> Tensor:
    """First of each pair minus factor times second, in the wider dtype; [b 2h t n] and [b h t 1] to [b h t n]."""
    first, second = both[:, 0::2].to(factor.dtype), both[:, 1::2].to(factor.dtype)
    return torch.addcmul(first, second, factor, value=-1)
