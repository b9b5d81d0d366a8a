"""The language model: an embedding, blocks, a final norm and a head, for any tree of parts."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windtunnel.errors import InputError
from windtunnel.init import Initial, Normal, initialize
from windtunnel.kernels.linear_cross_entropy import linear_cross_entropy, linear_token_losses
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Cost, Layer, Role
from windtunnel.mixers.base import Mixer
from windtunnel.mlps.base import MLP
from windtunnel.norms import Norm, Scale
from windtunnel.positions import Learned
from windtunnel.residuals import BlockOutput, Residual
from windtunnel.shapes import Documents, Hidden, TokenLosses, Tokens
from windtunnel.spec import Spec


class ModelState(NamedTuple):
    """Everything that decoding needs to go on: the number of tokens seen, and each block's mixer state."""

    position: int
    blocks: tuple[Any, ...]


class Output(NamedTuple):
    """logits [b t v], the state after the last token (None where documents were given), losses and metrics by name."""

    logits: Tensor
    state: ModelState | None
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Loss(NamedTuple):
    """total is what training minimises: the mean cross-entropy in nats plus the layers' own weighted losses."""

    total: Tensor
    cross_entropy: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


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


class Embedding(Spec):
    """Token vectors times `scale`, plus additive positions if any."""

    scale: float = 1.0
    positions: Learned | None = None

    def build(self, vocab: int, width: int) -> "EmbeddingLayer":
        return EmbeddingLayer(self, vocab, width)


class EmbeddingLayer(Layer):
    mechanism = "embedding"

    def __init__(self, spec: Embedding, vocab: int, width: int) -> None:
        super().__init__()
        self.scale, self.width = spec.scale, width
        self.weight = self.declare("weight", (vocab, width), Role("embedding", fan_in=width))
        self.positions = spec.positions.build(width) if spec.positions is not None else None

    def forward(self, tokens: Tensor, first: int) -> Tensor:
        x = F.embedding(tokens, self.weight)
        if self.scale != 1.0:
            x = x * self.scale
        return x if self.positions is None else x + self.positions(first, tokens.shape[1])

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
        role = Role("unembedding", fan_in=width)
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
        logits = F.linear(hidden, self.table(embedding), self.bias)
        cap = self.spec.soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def costs(self, length: int) -> list[Cost]:
        return [Cost.matmul("unembedding", 2.0 * self.width * self.vocab, 5.0 * self.vocab)]


class LanguageModel(Spec):
    """A decoder-only language model.

    context: the length it is meant for; only additive position tables are bound by it. initial: how parameters
    start; it is part of a run's identity but not of the function (`same_function`).
    """

    vocab: int
    width: int
    context: int
    embedding: Embedding = Embedding()
    blocks: tuple[Block, ...]
    norm: Norm | None = None
    head: Head = Head()
    initial: Initial = Normal()

    def validate(self) -> None:
        for name in ("vocab", "width", "context"):
            value = getattr(self, name)
            self.require(value > 0, f"{name} must be positive, got {value}")
        self.require(len(self.blocks) > 0, "blocks must not be empty")
        kinds = {block.residual.normalized for block in self.blocks}
        self.require(len(kinds) == 1, "normalised and ordinary blocks cannot share one residual stream")

    def build(self) -> "LanguageModelLayer":
        """An uninitialised module on the current default device (the meta device costs no memory)."""
        return LanguageModelLayer(self)

    def same_function(self, other: "LanguageModel") -> bool:
        """Whether two specs compute the same function of their parameters."""
        return self.replace(initial=Normal()) == other.replace(initial=Normal())


class LanguageModelLayer(Layer):
    """The module of a `LanguageModel`; parameters are named by the spec's path, e.g. `blocks.3.mixer.q.weight`."""

    def __init__(self, spec: LanguageModel) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = spec.embedding.build(spec.vocab, spec.width)
        self.blocks = nn.ModuleDict({str(index): block.build(spec.width) for index, block in enumerate(spec.blocks)})
        self.norm = spec.norm.build(spec.width) if spec.norm is not None else None
        self.head = spec.head.build(spec.vocab, spec.width)

    @property
    def normalized(self) -> bool:
        """Whether the weights live on the unit sphere."""
        return self.spec.blocks[0].residual.normalized

    def initialize(self, seed: int) -> "LanguageModelLayer":
        """Fill the parameters from (seed, name), and project them if they are constrained."""
        initialize(self, self.spec.initial, seed, len(self.blocks))
        self.project_()
        return self

    def forward(self, tokens: Tokens, state: ModelState | None = None, documents: Documents | None = None) -> Output:
        """Logits for each token, and the state to go on from. Pass that state back with the tokens that follow.

        With `documents` nothing crosses from one document to another, and no state is returned.
        """
        if documents is not None and state is not None:
            raise InputError("documents: a call that continues from a state reads one document; leave it out")
        if state is None and documents is None:
            state = self.initial_state(tokens.shape[0])
        hidden, state, losses, metrics = self._hidden(tokens, state, documents)
        return Output(self.head(hidden, self.embedding.weight), state, losses, metrics)

    def loss(self, tokens: Tokens, targets: Tokens, documents: Documents | None = None) -> Loss:
        """Mean cross-entropy over targets other than -1, without a state and without storing all logits."""
        hidden, _, losses, metrics = self._hidden(tokens, None, documents)
        table = self.head.table(self.embedding.weight)
        cross_entropy, _ = linear_cross_entropy(
            hidden.flatten(0, 1), table, targets.flatten(), bias=self.head.bias, soft_cap=self.spec.head.soft_cap
        )
        total = cross_entropy
        for value in losses.values():
            total = total + value
        return Loss(total, cross_entropy, losses, metrics)

    @torch.no_grad()
    def token_losses(self, tokens: Tokens, targets: Tokens, documents: Documents | None = None) -> TokenLosses:
        """Nats of each target in float32; 0 where the target is -1."""
        hidden, *_ = self._hidden(tokens, None, documents)
        table = self.head.table(self.embedding.weight)
        losses = linear_token_losses(
            hidden.flatten(0, 1), table, targets.flatten(), bias=self.head.bias, soft_cap=self.spec.head.soft_cap
        )
        return losses.view(targets.shape)

    def initial_state(self, batch: int) -> ModelState:
        """The state before the first token."""
        like = self.embedding.weight
        states = [block.mixer.initial_state(batch, like.device, like.dtype) for block in self._blocks()]
        return ModelState(0, tuple(states))

    @torch.no_grad()
    def project_(self) -> None:
        """Put the weights back on the unit sphere where the architecture demands it (nGPT section 2.6).

        Rows of matrices that read the stream and of both tables, columns of matrices that write to it; computed in
        float32 or wider. Moments of the optimiser are left alone.
        """
        if not self.normalized:
            return
        for module in self.modules():
            if isinstance(module, Layer):
                for name, role in module.roles.items():
                    if role.kind in ("reads", "embedding", "unembedding", "writes"):
                        axis = 0 if role.kind == "writes" else 1
                        weight = module.get_parameter(name)
                        weight.copy_(F.normalize(weight.to(working_dtype(weight)), dim=axis))

    def costs(self, length: int) -> list[Cost]:
        """Forward cost per token by mechanism, of all parts."""
        parts: list[Any] = [self.embedding, *self._blocks(), *([self.norm] if self.norm is not None else []), self.head]
        return [cost for part in parts for cost in part.costs(length)]

    def state_bytes(self, length: int, element: int = 4) -> int:
        return sum(block.state_bytes(length, element) for block in self._blocks())

    def _blocks(self) -> list[BlockLayer]:
        return [block for block in self.blocks.values() if isinstance(block, BlockLayer)]

    def _hidden(
        self, tokens: Tensor, state: ModelState | None, documents: Tensor | None
    ) -> tuple[Hidden, ModelState | None, dict[str, Tensor], dict[str, Tensor]]:
        first = state.position if state is not None else 0
        context = Context(torch.arange(first, first + tokens.shape[1], device=tokens.device), documents)
        x = self.embedding(tokens, first)  # b t d
        states, losses, metrics = [], {}, {}
        for index, block in enumerate(self.blocks.values()):
            out: BlockOutput = block(x, context, state.blocks[index] if state is not None else None)
            x = out.hidden
            states.append(out.state)
            losses.update({f"blocks.{index}.{name}": value for name, value in out.losses.items()})
            metrics.update({f"blocks.{index}.{name}": value for name, value in out.metrics.items()})
        if self.norm is not None:
            x = self.norm(x)
        after = ModelState(first + tokens.shape[1], tuple(states)) if state is not None else None
        return x, after, losses, metrics
