"""Softmax attention: multi-head, grouped-query, multi-query, with or without a window; and nGPT's normalised form."""

import math
from typing import Any

import torch
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels import banded, blocked
from windtunnel.kernels.attention import ROWS, attention, attention_maps, attention_scores
from windtunnel.kernels.banded import banded_attention
from windtunnel.kernels.rms_norm import scaled_unit_norm, unit_norm
from windtunnel.layer import Context, Cost, mean_attended
from windtunnel.mixers.base import AttendingLayer, Buffers, KeyValues, Mixer, merge_heads, split_heads
from windtunnel.norms import Scale
from windtunnel.positions import Alibi, Rope


class Attention(Mixer):
    """softmax(scale q kᵀ + causal) v (Vaswani et al. 2017); kv_heads = 1 is multi-query (Shazeer 2019).

    head_width: None is width / heads. kv_heads: None is heads. scale: None is 1/sqrt(head_width).
    base_head_width: heads of another width than this have the scale of this one times base_head_width / head_width
    (muP, see `windtunnel.mup`).
    window: keys that a query sees, its own included; None is all before it. bias: on q, k, v and the output.
    output_bias: on the output alone; None follows bias. alibi: linear biases on the scores, beside or instead of rope.
    """

    heads: int
    head_width: int | None = None
    kv_heads: int | None = None
    rope: Rope | None = None
    scale: float | None = None
    window: int | None = None
    bias: bool = False
    output_bias: bool | None = None
    alibi: Alibi | None = None
    base_head_width: int | None = None

    def validate(self) -> None:
        self.require(self.heads > 0, f"heads must be positive, got {self.heads}")
        groups = self.kv_heads or self.heads
        self.require(self.heads % groups == 0, f"kv_heads {groups} does not divide heads {self.heads}")
        self.require(self.window is None or self.window > 0, f"window must be positive, got {self.window}")

    def build(self, width: int) -> "AttentionLayer":
        return AttentionLayer(self, width)


def resolve_head_width(spec: Mixer, width: int, heads: int, head_width: int | None, rope: Rope | None) -> int:
    """The width of a head; refuses heads that do not divide the width, and widths that cannot be rotated."""
    if head_width is None:
        spec.require(width % heads == 0, f"heads {heads} does not divide width {width}; give head_width")
        head_width = width // heads
    if rope is not None:
        rope.check(head_width)
    return head_width


def score_scale(head_width: int, scale: float | None = None, base: int | None = None) -> float:
    """The factor of scores: `scale` or 1/sqrt(width) in heads as wide as `base`, and with 1/width from there on.

    base None: the heads are as wide as themselves.
    """
    base = base or head_width
    return (scale if scale is not None else 1 / math.sqrt(base)) * base / head_width


class AttentionLayer(AttendingLayer):
    mechanism = "attention projections"

    def __init__(self, spec: Attention, width: int) -> None:
        super().__init__()
        self.spec, self.window = spec, spec.window
        self.heads, self.kv_heads = spec.heads, spec.kv_heads or spec.heads
        self.head_width = resolve_head_width(spec, width, spec.heads, spec.head_width, spec.rope)
        self.scale = score_scale(self.head_width, spec.scale, spec.base_head_width)
        # Scores under another scale than 1/sqrt(head_width) are of the usual size if the queries make up for it.
        kept = spec.base_head_width or self.head_width
        fan_in = max(1, round(width * kept * spec.scale**2)) if spec.scale is not None else width
        self.q = Linear(width, self.heads * self.head_width, "reads", spec.bias, fan_in)
        self.k = Linear(width, self.kv_heads * self.head_width, "reads", spec.bias)
        self.v = Linear(width, self.kv_heads * self.head_width, "reads", spec.bias)
        output_bias = spec.bias if spec.output_bias is None else spec.output_bias
        self.o = Linear(self.heads * self.head_width, width, "writes", output_bias)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        q, k, v = self.project(x, context)
        past = state.extend(k, v, context) if state is not None else KeyValues(k, v)
        mixed = attend(context, q, past, self.scale, self.spec.window, self.slopes(context))  # b h t k
        return self.o(merge_heads(mixed)), past.kept(self.spec.window) if state is not None else None

    def project(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [b h t k], keys and values [b g t k], positions applied."""
        q, k, v = split_heads(self.q(x), self.heads), split_heads(self.k(x), self.kv_heads), self.v(x)
        if self.spec.rope is not None:
            q, k = self.spec.rope.apply(context, q, k)
        return q, k, split_heads(v, self.kv_heads)

    def slopes(self, context: Context) -> Tensor | None:
        """[h], those of ALiBi."""
        return self.spec.alibi.of(context, self.heads) if self.spec.alibi is not None else None

    def attention_scores(self, x: Tensor, context: Context) -> Tensor:
        q, k, _ = self.project(x, context)
        return attention_scores(q, k, self.scale)

    def attention_maps(self, x: Tensor, context: Context) -> Tensor:
        q, k, _ = self.project(x, context)
        mask = context.mask(x.shape[1], self.spec.window)
        return attention_maps(q, k, self.scale, mask, causal=True, slopes=self.slopes(context))

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> KeyValues:
        empty = torch.empty(batch, self.kv_heads, 0, self.head_width, device=device, dtype=dtype)
        return KeyValues(empty, empty)

    def costs(self, length: int) -> list[Cost]:
        projections = sum(linear.operations for linear in (self.q, self.k, self.v, self.o))
        rotary = 3.0 * (self.heads + self.kv_heads) * self.head_width if self.spec.rope is not None else 0.0
        return [
            Cost.matmul("attention projections", projections, rotary),
            core_cost(
                self.heads, self.head_width, self.head_width, length, self.spec.window, self.spec.alibi is not None
            ),
        ]

    def state_bytes(self, length: int, element: int = 4) -> int:
        kept = length if self.spec.window is None else min(length, self.spec.window - 1)
        return kept * self.kv_heads * 2 * self.head_width * element


def attend(
    context: Context,
    q: Tensor,
    past: KeyValues | Buffers,
    scale: float,
    window: int | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Causal attention inside documents, of the newest queries [b h t k] over all keys; a window goes by blocks."""
    ordered = past.in_order(context)
    if ordered is None:
        keys, values, mask, causal = past.visible(context, window, slopes).to(q.dtype)
        return attention(q, keys, values, scale, mask, causal)
    keys, values = ordered.to(q.dtype)
    if window is not None:
        kept = banded.keeps_maps(q, keys, values, window)
        if banded.worth(q.shape[2], keys.shape[2], window, kept):
            documents = None if context.documents is None else context.documents[:, -keys.shape[2] :]
            return banded_attention(q, keys, values, scale, window, documents, slopes)
    mask = context.mask(keys.shape[2], window)
    return attention(q, keys, values, scale, mask, True, slopes)


def core_cost(
    heads: int, key_width: int, value_width: int, length: int, window: int | None = None, biased: bool = False
) -> Cost:
    """Scores and weighted values; about 5 element-wise operations a score for the softmax, 2 for ALiBi's bias.

    SDPA widens the narrower of keys and values with zeros, and forms the scores again in the backward pass.
    """
    attended, pair = mean_attended(length, window), 2.0 * heads * (key_width + value_width)
    widened = 2.0 * heads * max(key_width, value_width) * _mean_by_sdpa(length, window, biased)
    elementwise = (7.0 if biased else 5.0) * heads * attended
    computed = _mean_with_maps(length, window)
    stored = None
    if computed is not None:
        stored = Cost("attention core", pair * attended, pair * length, pair * computed, elementwise)
    return Cost("attention core", pair * attended, pair * length, 2 * widened, elementwise, widened, stored)


def _mean_by_sdpa(length: int, window: int | None, biased: bool) -> float:
    """Mean number of keys that SDPA multiplies with a query.

    It skips what plain causal order hides, not what a mask does. Biases go by blocks of `ROWS` queries.
    """
    windowed = window is not None and window < length
    if windowed and banded.worth(length, length, window or length, kept=False):
        return banded.overlapping_pairs(length, window or length) / length
    if biased:
        return sum(min(ROWS, length - start) * min(start + ROWS, length) for start in range(0, length, ROWS)) / length
    return float(length) if windowed else mean_attended(length)


def _mean_with_maps(length: int, window: int | None) -> float | None:
    """Mean number of keys that the kernels which keep maps multiply with a query; None where they do not apply."""
    if window is not None and window < length:
        return banded.kept_pairs(length, window) / length if window <= blocked.LONGEST else None
    return mean_by_blocks(length) if length <= blocked.LONGEST else None


def mean_by_blocks(length: int) -> float:
    """Mean number of keys that the kernels of kernels/blocked.py multiply with a query."""
    whole = blocked.Plan(batch=1, groups=1, repeats=1, length=length, mask=None)
    return sum((end - start) * end for start, end, _ in blocked.blocks(whole)) / length


class NormalizedAttention(Attention):
    """nGPT's attention (Loshchilov et al. 2024, section 2.3.1).

    Queries and keys are normalised to unit length after the rotation and multiplied by s_qk; the softmax scale is
    sqrt(head_width). query_key_scale: the s_qk vector, heads * head_width numbers shared by queries and keys.
    """

    query_key_scale: Scale | None = Scale()

    def validate(self) -> None:
        super().validate()
        self.require(self.kv_heads in (None, self.heads), "kv_heads must equal heads: s_qk is shared by q and k")

    def build(self, width: int) -> "NormalizedAttentionLayer":
        return NormalizedAttentionLayer(self, width)


class NormalizedAttentionLayer(AttentionLayer):
    def __init__(self, spec: NormalizedAttention, width: int) -> None:
        super().__init__(spec, width)
        self.scale = spec.scale if spec.scale is not None else math.sqrt(self.head_width)
        size = self.heads * self.head_width
        self.query_key_scale = spec.query_key_scale.build(size, width) if spec.query_key_scale is not None else None

    def project(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x, context)
        if self.query_key_scale is None:
            return unit_norm(q), unit_norm(k), v
        scale = self.query_key_scale().square().view(1, self.heads, 1, self.head_width)
        return (
            scaled_unit_norm(q, scale),
            unit_norm(k),
            v,
        )  # (q s) . (k s) = (q s²) . k: one product instead of two, and unit keys in the state

    @property
    def score_bound(self) -> float:
        """scale * max(s_qk²): a score is a cosine weighted by s_qk² and scaled."""
        largest = 1.0 if self.query_key_scale is None else self.query_key_scale().square().max().item()
        return self.scale * largest

    def costs(self, length: int) -> list[Cost]:
        size = self.heads * self.head_width
        scales = 0.0 if self.query_key_scale is None else 1.0 * size
        norms = Cost("norms", elementwise=2 * 4.0 * size)
        return [*super().costs(length), norms, Cost("scales", elementwise=scales)]
