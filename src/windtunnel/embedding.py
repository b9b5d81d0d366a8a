"""Where a model begins and ends: the embedding of tokens, and the head that turns hidden vectors into logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.layer import Context, Cost, Layer, Role
from windtunnel.norms import Scale
from windtunnel.positions import Positions
from windtunnel.spec import Spec


class Embedding(Spec):
    """Token vectors times `scale`, plus additive positions if any."""

    scale: float = 1.0
    positions: Positions | None = None

    def build(self, vocab: int, width: int) -> "EmbeddingLayer":
        return EmbeddingLayer(self, vocab, width)


class EmbeddingLayer(Layer):
    mechanism = "embedding"

    def __init__(self, spec: Embedding, vocab: int, width: int) -> None:
        super().__init__()
        self.scale, self.width = spec.scale, width
        self.weight = self.declare("weight", (vocab, width), Role("embedding", fan_in=width, fan_out=vocab))
        self.positions = spec.positions.build(width) if spec.positions is not None else None

    def forward(self, tokens: Tensor, context: Context) -> Tensor:
        x = self.vectors(tokens)
        return x if self.positions is None else x + self.positions(context, x)

    def vectors(self, tokens: Tensor) -> Tensor:
        """The scaled vectors of tokens [b t], without positions."""
        x = F.embedding(tokens, self.weight)
        return x * self.scale if self.scale != 1.0 else x

    def costs(self, length: int) -> list[Cost]:
        return [Cost("embedding", elementwise=self.width)]


class Head(Spec):
    """logits = scale · W h ⊙ token_scale + bias, optionally cap · tanh(logits / cap).

    tied: W is the embedding's table.
    """

    tied: bool = False
    bias: bool = False
    scale: float = 1.0
    token_scale: Scale | None = None
    soft_cap: float | None = None

    def build(self, vocab: int, width: int) -> "HeadLayer":
        return HeadLayer(self, vocab, width)


class HeadLayer(Layer):
    mechanism = "unembedding"

    def __init__(self, spec: Head, vocab: int, width: int) -> None:
        super().__init__()
        self.spec, self.vocab, self.width = spec, vocab, width
        role = Role("unembedding", fan_in=width, fan_out=vocab)
        self.weight = self.declare("weight", (vocab, width), role) if not spec.tied else None
        self.bias = self.declare("bias", (vocab,), Role("bias", constant=0.0)) if spec.bias else None
        self.token_scale = spec.token_scale.build(vocab, width) if spec.token_scale is not None else None

    def table(self, embedding: Tensor) -> Tensor:
        """The matrix [v d] whose product with a hidden vector gives the logits, all scales folded in."""
        table = embedding if self.weight is None else self.weight
        if self.token_scale is not None:
            table = table * (self.token_scale() * self.spec.scale)[:, None]
        elif self.spec.scale != 1.0:
            table = table * self.spec.scale
        return table

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        if self.token_scale is not None and hidden.shape[1] == 1 and not torch.is_grad_enabled():
            logits = self._scaled_after(hidden, embedding)
        else:
            logits = F.linear(hidden, self.table(embedding), self.bias)
        cap = self.spec.soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _scaled_after(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """The same where one token a row is decoded: the logits are scaled, not the table."""
        assert self.token_scale is not None
        logits: Tensor = F.linear(hidden, embedding if self.weight is None else self.weight)
        logits = logits * (self.token_scale() * self.spec.scale)
        return logits if self.bias is None else logits + self.bias

    def costs(self, length: int) -> list[Cost]:
        return [Cost.matmul("unembedding", 2.0 * self.width * self.vocab, 5.0 * self.vocab)]
