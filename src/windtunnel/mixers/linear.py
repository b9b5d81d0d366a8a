"""Linear attention: the whole past in a state of fixed size (Shen et al. 2018; Katharopoulos et al. 2020)."""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.init import Linear
from windtunnel.kernels.efficient_attention import CHUNK as MEANS_CHUNK
from windtunnel.kernels.efficient_attention import Means, causal_efficient_attention
from windtunnel.kernels.linear_attention import CHUNK, linear_attention
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, MixerLayer
from windtunnel.mixers.attention import resolve_head_width
from windtunnel.mixers.base import Mixer, merge_heads, split_heads
from windtunnel.positions import Rope

Features = Literal["exp", "softmax", "elu", "relu", "squared_relu"]


class LinearAttention(Mixer):
    """Causal attention without pairs: queries read sums over the past, of one size whatever its length.

    normalisation:
      "softmax": Efficient attention with its key softmax restricted to the prefix, one denominator for each feature;
                 the query's is over its features (Shen et al., section 3; `causal_efficient_attention`).
      "kernel":  φ(q)ᵀS / φ(q)ᵀz, one denominator for all features (Katharopoulos et al., eq. 9). With features "exp" it
                 is GPT-Neo's linear layer, but for that one's 1e-6 in the denominator.
      "scaling": qᵀS / n with n the tokens seen so far: the causal form of division by n (Shen et al., section 3.2).
                 Weights have signs and do not sum to 1.
    features: φ of "kernel". exp, softmax (over the features), elu + 1, relu + eps, relu² + eps.
    rope: with "scaling", and with elu and the relus in the numerator alone, as RoFormer has it (section 3.3), so that
    the denominator stays positive. With "kernel" and exp or softmax it is applied before φ as GPT-Neo does, which is
    legal but no function of distances. "softmax" has a denominator for each feature, which a rotation would mix.
    window: must be None; it is a field so that asking for one is refused by name.
    """

    heads: int
    head_width: int | None = None
    normalisation: Literal["softmax", "kernel", "scaling"] = "softmax"
    features: Features = "exp"
    rope: Rope | None = None
    bias: bool = False
    output_bias: bool | None = None
    eps: float = 1e-6
    window: int | None = None

    def validate(self) -> None:
        self.require(self.heads > 0, f"heads must be positive, got {self.heads}")
        self.require(
            self.window is None,
            f"window is {self.window}, but a linear state holds its whole past and can drop no token from it; leave "
            "window out, or take the mixer Attention for a window",
        )
        self.require(
            self.normalisation == "kernel" or self.features == "exp",
            f"features is {self.features!r}, which is for normalisation 'kernel'; with {self.normalisation!r} leave it "
            "out",
        )
        self.require(
            self.rope is None or self.normalisation != "softmax",
            "rope: normalisation 'softmax' has a denominator for each feature, and a rotation mixes them; use additive "
            "positions, or normalisation 'kernel' or 'scaling'",
        )
        self.require(self.eps >= 0, f"eps must not be negative, got {self.eps}")

    def build(self, width: int) -> "LinearAttentionLayer":
        return LinearAttentionLayer(self, width)

    @property
    def by_means(self) -> bool:
        """Whether keys are exponents, so that the past is kept as means and logs (`causal_efficient_attention`)."""
        return self.normalisation != "scaling" and self.features in ("exp", "softmax")


class Sums(NamedTuple):
    """Σ φ(k) vᵀ [b h k e] and Σ φ(k) [b h k] of the past; the second is empty where nothing is divided by it."""

    sums: Tensor
    mass: Tensor


class LinearAttentionLayer(MixerLayer):
    mechanism = "attention projections"

    def __init__(self, spec: LinearAttention, width: int) -> None:
        super().__init__()
        self.spec, self.heads = spec, spec.heads
        self.head_width = resolve_head_width(spec, width, spec.heads, spec.head_width, spec.rope)
        inner = self.heads * self.head_width
        self.q = Linear(width, inner, "reads", spec.bias)
        self.k = Linear(width, inner, "reads", spec.bias)
        self.v = Linear(width, inner, "reads", spec.bias)
        self.o = Linear(inner, width, "writes", spec.bias if spec.output_bias is None else spec.output_bias)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        q, k, v = (split_heads(linear(x), self.heads) for linear in (self.q, self.k, self.v))
        past = self.initial_state(x.shape[0], x.device, v.dtype) if state is None else state
        past = type(past)(*(part.to(working_dtype(v)) for part in past))
        mixed, new = self._read(q, k, v, past, context)
        return self.o(merge_heads(mixed)), new if state is not None else None

    def _read(self, q: Tensor, k: Tensor, v: Tensor, past: Any, context: Context) -> tuple[Tensor, Any]:
        if self.spec.by_means:
            return self._by_means(q, k, v, past, context)
        return (self._by_count if self.spec.normalisation == "scaling" else self._by_sums)(q, k, v, past, context)

    def _by_means(self, q: Tensor, k: Tensor, v: Tensor, past: Means, context: Context) -> tuple[Tensor, Means]:
        if self.spec.rope is not None:
            q, k = self.spec.rope.apply(context, q, k)
        if self.spec.features == "softmax":
            k = k.to(working_dtype(k)).log_softmax(-1)  # φ(q) divides by a number of its own, which cancels
        joint = self.spec.normalisation == "kernel"
        return causal_efficient_attention(q, k, v, joint=joint, state=past, starts=context.starts)

    def _by_sums(self, q: Tensor, k: Tensor, v: Tensor, past: Sums, context: Context) -> tuple[Tensor, Sums]:
        q, k, wide = self._features(q), self._features(k), v.to(working_dtype(v))
        if self.spec.rope is None:
            with_mass = torch.cat([past.sums, past.mass[..., None]], -1)
            both, after = linear_attention(q, k, F.pad(wide, (0, 1), value=1.0), with_mass, context.starts)
            return (both[..., :-1] / both[..., -1:]).to(v.dtype), Sums(after[..., :-1], after[..., -1])
        mass, after_mass = linear_attention(q, k, torch.ones_like(wide[..., :1]), past.mass[..., None], context.starts)
        q, k = self.spec.rope.apply(context, q, k)
        mixed, after = linear_attention(q, k, wide, past.sums, context.starts)
        return (mixed / mass).to(v.dtype), Sums(after, after_mass[..., 0])

    def _features(self, x: Tensor) -> Tensor:
        x = x.to(working_dtype(x))
        if self.spec.features == "elu":
            return F.elu(x) + 1
        return (F.relu(x) if self.spec.features == "relu" else F.relu(x).square()) + self.spec.eps

    def _by_count(self, q: Tensor, k: Tensor, v: Tensor, past: Sums, context: Context) -> tuple[Tensor, Sums]:
        if self.spec.rope is not None:
            q, k = self.spec.rope.apply(context, q, k)
        mixed, after = linear_attention(q, k, v.to(working_dtype(v)), past.sums, context.starts)
        count = tokens_seen(context).to(mixed.dtype)[:, None, :, None]
        return (mixed / count).to(v.dtype), Sums(after, past.mass)

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> Means | Sums:
        wide = torch.promote_types(dtype, torch.float32)
        matrix = torch.zeros(batch, self.heads, self.head_width, self.head_width, device=device, dtype=wide)
        if self.spec.by_means:
            return Means(matrix[..., 0].fill_(float("-inf")).clone(), torch.zeros_like(matrix))
        return Sums(matrix, matrix[..., 0].clone() if self.spec.normalisation == "kernel" else matrix[:, :, :0, 0])

    def costs(self, length: int) -> list[Cost]:
        projections = sum(linear.operations for linear in (self.q, self.k, self.v, self.o))
        rotary = 6.0 * self.heads * self.head_width if self.spec.rope is not None else 0.0
        return [Cost.matmul("attention projections", projections, rotary), self._core(length)]

    def _core(self, length: int) -> Cost:
        """A step adds k vᵀ to the state and reads it with q. Chunks also multiply pairs, and are whole at the end."""
        key, levels = self.head_width, 0
        value = key + (
            self.spec.normalisation == "kernel" and not self.spec.by_means
        )  # and the mass, where it is summed
        if self.spec.by_means:
            chunk = min(MEANS_CHUNK, 1 << (length - 1).bit_length())
            levels, pairs = (chunk - 1).bit_length(), (chunk - 1) * (key + value)
        else:
            chunk = min(CHUNK, length)
            pairs = 2 * chunk * (key + value + (key if self._two_passes else 0))
        padded = math.ceil(length / chunk) * chunk / length
        step = 4.0 * self.heads * key * value
        executed = padded * (self.heads * pairs + step)
        return Cost("linear attention core", step, step, executed, self.heads * key * (6.0 + 4.0 * levels))

    @property
    def _two_passes(self) -> bool:
        """Whether numerator and denominator have different features (a rotation in the numerator alone)."""
        return self.spec.normalisation == "kernel" and not self.spec.by_means and self.spec.rope is not None

    def state_bytes(self, length: int, element: int = 4) -> int:
        masses = self.head_width if self.spec.normalisation != "scaling" else 0
        return self.heads * (self.head_width**2 + masses) * max(element, 4)


def tokens_seen(context: Context) -> Tensor:
    """How many tokens of its document each token can read, itself included: [1 t], or [b t] with documents."""
    first = context.positions.reshape(-1, context.positions.shape[-1])
    positions = first + 1
    if context.starts is None:
        return positions
    every = first[..., -1:] - torch.arange(context.row_starts.shape[1] - 1, -1, -1, device=first.device)  # 1 s
    before = torch.where(context.row_starts, every, 0)  # positions passed when the document began
    return positions - before.cummax(1).values[:, -first.shape[-1] :]
