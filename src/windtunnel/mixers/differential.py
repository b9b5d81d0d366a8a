"""Differential attention (Ye et al. 2024, arXiv 2410.05258)."""

import math
from typing import Any

import torch
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels.blocked import LONGEST
from windtunnel.kernels.differential import differential_attention, differential_maps, differential_scores
from windtunnel.layer import Context, Cost, Role, mean_attended
from windtunnel.mixers.attention import core_cost, mean_by_blocks, resolve_head_width, score_scale
from windtunnel.mixers.base import AttendingLayer, KeyValues, Mixer, Visible, merge_heads, split_heads
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope


class DiffAttention(Mixer):
    """(softmax(Q₁K₁ᵀ/√k) - λ softmax(Q₂K₂ᵀ/√k)) V, each head normalised and scaled by 1 - λ_init (eq. 1-3).

    λ = exp(λq₁·λk₁) - exp(λq₂·λk₂) + λ_init, λ_init = 0.8 - 0.6 exp(-0.3 depth), depth counted from 0.
    heads: differential heads, half those of an ordinary transformer. head_width: of queries and keys; values are
    twice as wide; None is width / (2 heads). gain: a learned gain of the head norm, shared by the layer's heads.
    constant: λ_init whatever the depth (the ablation of section 3.8 has 0.8 and 0.5); None is the formula.
    With kv_heads < heads the pair is split first and then grouped, as in the authors' flash version; their plain
    version pairs differently and is not followed. base_head_width: as `Attention` has it.
    """

    heads: int
    depth: int
    head_width: int | None = None
    kv_heads: int | None = None
    rope: Rope | None = None
    gain: bool = True
    eps: float = 1e-5
    constant: float | None = None
    base_head_width: int | None = None

    def validate(self) -> None:
        self.require(self.heads > 0, f"heads must be positive, got {self.heads}")
        groups = self.kv_heads or self.heads
        self.require(self.heads % groups == 0, f"kv_heads {groups} does not divide heads {self.heads}")
        self.require(self.depth >= 0, f"depth is counted from 0, got {self.depth}")
        known = self.constant is None or 0 < self.constant < 1
        self.require(known, f"constant must lie between 0 and 1, got {self.constant}")

    def build(self, width: int) -> "DiffAttentionLayer":
        return DiffAttentionLayer(self, width)

    @property
    def lambda_init(self) -> float:
        """0.8 - 0.6 exp(-0.3 depth), or the constant."""
        if self.constant is not None:
            return self.constant
        return 0.8 - 0.6 * math.exp(-0.3 * self.depth)


class DiffAttentionLayer(AttendingLayer):
    mechanism = "attention projections"

    def __init__(self, spec: DiffAttention, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.heads, self.kv_heads = spec.heads, spec.kv_heads or spec.heads
        self.head_width = resolve_head_width(spec, width, 2 * spec.heads, spec.head_width, spec.rope)
        self.value_width = 2 * self.head_width
        self.scale = score_scale(self.head_width, base=spec.base_head_width)
        self.lambda_init = spec.lambda_init
        self.q = Linear(width, 2 * self.heads * self.head_width, "reads")
        self.k = Linear(width, 2 * self.kv_heads * self.head_width, "reads")
        self.v = Linear(width, self.kv_heads * self.value_width, "reads")
        self.o = Linear(self.heads * self.value_width, width, "writes")
        self.norm = RMSNorm(eps=spec.eps, gain=spec.gain).build(self.value_width)
        role = Role("gain", deviation=0.1)
        self.lambda_q1 = self.declare("lambda_q1", (self.head_width,), role)
        self.lambda_k1 = self.declare("lambda_k1", (self.head_width,), role)
        self.lambda_q2 = self.declare("lambda_q2", (self.head_width,), role)
        self.lambda_k2 = self.declare("lambda_k2", (self.head_width,), role)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        (q, k), v = self.queries_and_keys(x, context), split_heads(self.v(x), self.kv_heads)
        past = state.extend(k, v, context) if state is not None else None
        seen = past.visible(context).to(q.dtype) if past is not None else Visible(k, v, mask=None, causal=True)
        lam = self.current_lambda()
        documents = context.documents if past is None else None  # else they are in the mask
        mixed = differential_attention(q, seen.keys, seen.values, lam, self.scale, seen.mask, seen.causal, documents)
        normed = self.norm(mixed) * (1 - self.lambda_init)
        return self.o(merge_heads(normed)), past

    def queries_and_keys(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Of every sub-head, [b 2h t k] and [b 2g t k], positions applied."""
        q, k = split_heads(self.q(x), 2 * self.heads), split_heads(self.k(x), 2 * self.kv_heads)
        if self.spec.rope is not None:
            q, k = self.spec.rope.apply(context, q, k)
        return q, k

    def attention_scores(self, x: Tensor, context: Context) -> Tensor:
        return differential_scores(*self.queries_and_keys(x, context), self.scale)

    def attention_maps(self, x: Tensor, context: Context) -> Tensor:
        q, k = self.queries_and_keys(x, context)
        mask = context.mask(x.shape[1])
        return differential_maps(q, k, self.current_lambda(), self.scale, mask, causal=True)

    def current_lambda(self) -> Tensor:
        """λ in float32, one scalar for the layer; nothing keeps it between 0 and 1."""
        first = (self.lambda_q1.float() @ self.lambda_k1.float()).exp()
        second = (self.lambda_q2.float() @ self.lambda_k2.float()).exp()
        return first - second + self.lambda_init

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> KeyValues:
        keys = torch.empty(batch, 2 * self.kv_heads, 0, self.head_width, device=device, dtype=dtype)
        values = torch.empty(batch, self.kv_heads, 0, self.value_width, device=device, dtype=dtype)
        return KeyValues(keys, values)

    def costs(self, length: int) -> list[Cost]:
        projections = sum(linear.operations for linear in (self.q, self.k, self.v, self.o))
        rotary = 3.0 * 2 * (self.heads + self.kv_heads) * self.head_width if self.spec.rope is not None else 0.0
        norm = Cost("norms", elementwise=5.0 * self.heads * self.value_width)
        return [Cost.matmul("attention projections", projections, rotary), self._core(length), norm]

    def _core(self, length: int) -> Cost:
        """Two calls multiply each map with the values: 1.5 times the products of plain attention.

        By blocks on a CPU they are subtracted first, which costs what plain attention does; long ones are formed again.
        """
        calls = core_cost(2 * self.heads, self.head_width, self.value_width, length)
        attended, computed = mean_attended(length), mean_by_blocks(length)
        scores, values = 4.0 * self.heads * self.head_width, 2.0 * self.heads * self.value_width
        by_blocks = Cost(
            "attention core",
            model=(scores + values) * attended,
            dense=(scores + values) * length,
            hardware=(scores + values) * computed,
            elementwise=12.0 * self.heads * attended,
            recomputed=scores * computed if length > LONGEST else 0.0,
        )
        return calls._replace(elementwise=calls.elementwise + values, stored=by_blocks)

    def state_bytes(self, length: int, element: int = 4) -> int:
        return length * self.kv_heads * (2 * self.head_width + self.value_width) * element
