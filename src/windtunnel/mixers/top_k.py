"""Attention to the keys that a query likes best: a pattern that the content chooses."""

from typing import Any

from torch import Tensor

from windtunnel.kernels.top_k import multiplied_pairs, top_k_attention, top_k_maps
from windtunnel.layer import Context, Cost, mean_attended
from windtunnel.mixers.attention import Attention, AttentionLayer
from windtunnel.mixers.base import KeyValues, merge_heads


class TopKAttention(Attention):
    """Softmax over the `top` largest scores of each query (Gupta et al. 2021, arXiv 2106.06899), in causal order.

    What a token sees depends on nothing after it, so that its logits are those of a sampler: the hashes of Reformer and
    the clusters of the Routing Transformer decide over a sequence as a whole, and there later tokens change what
    earlier ones may see; they are left out for that. top at or above the length is full attention.
    """

    top: int

    def validate(self) -> None:
        super().validate()
        self.require(self.top > 0, f"top must be positive, got {self.top}")
        self.require(self.window is None, f"a window of {self.window} keys goes with no choice among all keys")
        self.require(self.alibi is None, "alibi: the choice is by content alone, so that biases have no place in it")

    def build(self, width: int) -> "TopKAttentionLayer":
        return TopKAttentionLayer(self, width)


class TopKAttentionLayer(AttentionLayer):
    def __init__(self, spec: TopKAttention, width: int) -> None:
        super().__init__(spec, width)
        self.top = spec.top

    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        q, k, v = self.project(x, context)
        past = state.extend(k, v, context) if state is not None else KeyValues(k, v)
        keys, values, mask, causal = past.visible(context).to(q.dtype)
        mixed = top_k_attention(q, keys, values, self.scale, self.top, mask, causal)
        return self.o(merge_heads(mixed)), past if state is not None else None

    def attention_maps(self, x: Tensor, context: Context) -> Tensor:
        q, k, _ = self.project(x, context)
        return top_k_maps(q, k, self.scale, self.top, context.mask(x.shape[1]))

    def costs(self, length: int) -> list[Cost]:
        """Every score is formed, and the values of `top` keys are summed; the kernel multiplies the others by zero."""
        projections, _ = super().costs(length)
        scores = 2.0 * self.heads * self.head_width
        seen, chosen = mean_attended(length), mean_attended(length, self.top)
        executed = scores * multiplied_pairs(length) / length
        core = Cost(
            "attention core",
            model=scores * (seen + chosen),
            dense=2 * scores * length,
            hardware=2 * executed,
            elementwise=self.heads * (2.0 * seen + 5.0 * chosen),
            recomputed=executed,
        )
        return [projections, core]
