"""Attention in both directions, for axes whose tokens are all known: the rows above the one that is generated."""

from typing import Any

from torch import Tensor

from windtunnel.kernels.attention import attention, attention_maps
from windtunnel.layer import Context, Cost
from windtunnel.mixers.attention import Attention, AttentionLayer
from windtunnel.mixers.base import merge_heads


class UnmaskedAttention(Attention):
    """softmax(scale q kᵀ) v over the whole sequence (Vaswani et al. 2017; Ho et al. 2019, section 3).

    Every token sees all others, so a language model refuses it; `AxialTransformer` runs it along complete rows.
    It has no decoding state.
    """

    def validate(self) -> None:
        super().validate()
        self.require(self.window is None, f"window is {self.window}; without a mask there is none")
        self.require(self.alibi is None, "alibi is for causal attention")

    @property
    def causal(self) -> bool:
        return False

    def build(self, width: int) -> "UnmaskedAttentionLayer":
        return UnmaskedAttentionLayer(self, width)


class UnmaskedAttentionLayer(AttentionLayer):
    def forward(self, x: Tensor, context: Context, state: Any = None) -> tuple[Tensor, Any]:
        q, k, v = self.project(x, context)
        return self.o(merge_heads(attention(q, k, v, self.scale))), state

    def attention_maps(self, x: Tensor, context: Context) -> Tensor:
        q, k, _ = self.project(x, context)
        return attention_maps(q, k, self.scale)

    def initial_state(self, batch: int, device: Any, dtype: Any) -> Any:
        """Nothing is kept."""
        return ()

    def costs(self, length: int) -> list[Cost]:
        scores = 2.0 * self.heads * self.head_width * length
        stored = Cost.matmul("attention core", 2 * scores, 5.0 * self.heads * length)
        return [super().costs(length)[0], stored._replace(recomputed=scores, stored=stored)]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return 0
