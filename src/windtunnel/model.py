"""The language model: an embedding, blocks, a final norm and a head, for any tree of parts."""

from typing import Any

import torch
from torch import Tensor, nn

from windtunnel.embedding import Embedding, Head
from windtunnel.layer import Context, Cost, Layer
from windtunnel.mixers.base import Mixer
from windtunnel.mlps.base import MLP
from windtunnel.norms import Norm
from windtunnel.residuals import BlockOutput, Residual
from windtunnel.root import Encoded, Loss, Model, ModelLayer, ModelState, Output
from windtunnel.spec import Spec

__all__ = [
    "Block",
    "BlockLayer",
    "Embedding",
    "Head",
    "LanguageModel",
    "LanguageModelLayer",
    "Loss",
    "ModelState",
    "Output",
]


class Block(Spec):
    """One layer: a wiring, a mixer along the sequence, an MLP (None leaves it out)."""

    residual: Residual
    mixer: Mixer
    mlp: MLP | None = None

    def build(self, width: int) -> "BlockLayer":
        return BlockLayer(self, width)


class BlockLayer(Layer):
    def __init__(self, spec: Block, width: int) -> None:
        super().__init__()
        self.residual = spec.residual.build(width, spec.mlp is not None)
        self.mixer = spec.mixer.build(width)
        self.mlp = spec.mlp.build(width) if spec.mlp is not None else None

    def forward(self, x: Tensor, context: Context, state: Any = None) -> BlockOutput:
        out: BlockOutput = self.residual(x, self.mixer, self.mlp, context, state)
        return out

    def costs(self, length: int) -> list[Cost]:
        parts = [self.mixer, self.residual] + ([self.mlp] if self.mlp is not None else [])
        return [cost for part in parts for cost in part.costs(length)]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return self.mixer.state_bytes(length, element)


class LanguageModel(Model):
    """A decoder-only language model.

    projected: whether the weights are put back on the unit sphere after every training step (nGPT section 2.6); None
    is where the hidden states live on it too.
    """

    blocks: tuple[Block, ...]
    norm: Norm | None = None
    projected: bool | None = None

    def validate(self) -> None:
        super().validate()
        self.require(len(self.blocks) > 0, "blocks must not be empty")
        self.require(
            all(block.mixer.causal for block in self.blocks),
            "mixers must be causal: a token would see what it predicts",
        )
        kinds = {block.residual.normalized for block in self.blocks}
        self.require(len(kinds) == 1, "normalised and ordinary blocks cannot share one residual stream")

    @property
    def layers(self) -> tuple[Spec, ...]:
        return self.blocks

    def build(self) -> "LanguageModelLayer":
        return LanguageModelLayer(self)


class LanguageModelLayer(ModelLayer):
    """The module of a `LanguageModel`; parameters are named by the spec's path, e.g. `blocks.3.mixer.q.weight`."""

    def __init__(self, spec: LanguageModel) -> None:
        super().__init__(spec)
        self.blocks = nn.ModuleDict({str(index): block.build(spec.width) for index, block in enumerate(spec.blocks)})
        self.norm = spec.norm.build(spec.width) if spec.norm is not None else None
        self.head = spec.head.build(spec.vocab, spec.width)

    @property
    def normalized(self) -> bool:
        projected = self.spec.projected
        return bool(self.spec.blocks[0].residual.normalized if projected is None else projected)

    def encode(self, tokens: Tensor, state: ModelState | None, context: Context) -> Encoded:
        x = self.embedding(tokens, context)  # b t d
        states, losses, metrics = [], {}, {}
        for index, block in enumerate(self._blocks()):
            out: BlockOutput = block(x, context.at(index), state.blocks[index] if state is not None else None)
            x = out.hidden
            states.append(out.state)
            losses.update({f"blocks.{index}.{name}": value for name, value in out.losses.items()})
            metrics.update({f"blocks.{index}.{name}": value for name, value in out.metrics.items()})
        if self.norm is not None:
            x = self.norm(x)
        return Encoded(x, tuple(states) if state is not None else None, losses, metrics)

    def initial_state(self, batch: int) -> ModelState:
        like = self.embedding.weight
        states = [block.mixer.initial_state(batch, like.device, like.dtype) for block in self._blocks()]
        return ModelState(0, tuple(states))

    def reserve(self, batch: int, capacity: int, chunk: int, dtype: torch.dtype | None = None) -> ModelState:
        like = self.embedding.weight
        kept = dtype or like.dtype
        states = [block.mixer.reserve(batch, like.device, kept, capacity, chunk) for block in self._blocks()]
        return ModelState(0, tuple(states))

    def costs(self, length: int) -> list[Cost]:
        """Forward cost per token by mechanism, of all parts."""
        parts: list[Any] = [self.embedding, *self._blocks(), *([self.norm] if self.norm is not None else []), self.head]
        return [cost for part in parts for cost in part.costs(length)]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return sum(block.state_bytes(length, element) for block in self._blocks())

    def _blocks(self) -> list[BlockLayer]:
        return [block for block in self.blocks.values() if isinstance(block, BlockLayer)]
