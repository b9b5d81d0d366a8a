"""What every model answers, whatever stands between its embedding and its head."""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from windtunnel.embedding import Embedding, EmbeddingLayer, Head, HeadLayer
from windtunnel.errors import InputError
from windtunnel.init import Initial, Normal, initialize
from windtunnel.kernels.linear_cross_entropy import Columns, linear_cross_entropy, linear_token_losses
from windtunnel.kernels.routing import working_dtype
from windtunnel.layer import Context, Layer
from windtunnel.positions.rotary import has_rope, ropes, scaled
from windtunnel.positions.scaling import Scaling, scaling_for
from windtunnel.shapes import Documents, Hidden, RowDocuments, TokenLosses, Tokens
from windtunnel.spec import Spec

_ZERO = 1e-12  # a vector of zeros stays one


class ModelState(NamedTuple):
    """Everything that decoding needs to go on: the number of tokens seen, and each block's mixer state.

    position: the same for every row, or one number a row (only with `reserve`).
    """

    position: int | tuple[int, ...]
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


class Encoded(NamedTuple):
    """What comes to the head: hidden vectors [b t d], each block's state (None if none was given), losses, metrics."""

    hidden: Hidden
    states: tuple[Any, ...] | None
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Model(Spec):
    """The root of a tree of parts: a function from tokens to the logits of the next one.

    context: the length it is meant for; only additive position tables are bound by it. initial: how parameters
    start; it is part of a run's identity but not of the function (`same_function`).
    """

    vocab: int
    width: int
    context: int
    embedding: Embedding = Embedding()
    head: Head = Head()
    initial: Initial = Normal()

    def validate(self) -> None:
        for name in ("vocab", "width", "context"):
            value = getattr(self, name)
            self.require(value > 0, f"{name} must be positive, got {value}")
        if self.embedding.positions is not None:
            self.embedding.positions.check(self.width)

    @property
    def layers(self) -> tuple[Spec, ...]:
        """The repeated parts, from the bottom to the top."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Number of layers, which scaled initial values depend on."""
        return len(self.layers)

    @property
    def packs_documents(self) -> bool:
        """Whether several documents can lie in one row without seeing each other."""
        return True

    @property
    def rotates(self) -> bool:
        """Whether it has rotary positions, which can be scaled."""
        return has_rope(self)

    @property
    def scaling(self) -> Scaling | None:
        """How its rotary positions are scaled already."""
        return next((rope.scaling for rope in ropes(self) if rope.scaling is not None), None)

    def build(self) -> "ModelLayer":
        """An uninitialised module on the current default device (the meta device costs no memory)."""
        raise NotImplementedError

    def extended(self, method: str, length: int, trained: int | None = None) -> Self:
        """This model for texts of `length` tokens by scaled rotary positions: linear, ntk, dynamic, yarn or llama3.

        The parameters are the same: weights of one fit the other, as they are or trained further. trained: the context
        that it was trained at; None is `context`.
        Raises `InputError` where there are no rotary positions.
        """
        return scaled(self, scaling_for(method, trained or self.context, length)).replace(context=length)

    def same_function(self, other: "Model") -> bool:
        """Whether two specs compute the same function of their parameters."""
        return self.replace(initial=Normal()) == other.replace(initial=Normal())


class ModelLayer(Layer):
    """The module of a `Model`. A root says how hidden vectors come about (`encode`) and which states there are.

    vocabulary: which part of it the tables hold, where processes share them.
    """

    vocabulary: Columns | None = None

    def __init__(self, spec: Model) -> None:
        super().__init__()
        self.spec: Any = spec
        self.embedding: EmbeddingLayer = spec.embedding.build(spec.vocab, spec.width)

    head: HeadLayer

    @property
    def normalized(self) -> bool:
        """Whether the weights live on the unit sphere."""
        return False

    def encode(self, tokens: Tensor, state: "ModelState | None", context: Context) -> Encoded:
        """Everything between tokens and head. The new states are returned only where a state was given."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> "ModelState":
        """The state before the first token."""
        raise NotImplementedError

    def reserve(self, batch: int, capacity: int, chunk: int, dtype: torch.dtype | None = None) -> "ModelState":
        """A state whose growing parts are buffers that calls write in place: the engine's form of `initial_state`.

        capacity: tokens that a row can hold where every token is kept. chunk: the longest call. dtype: of keys, values
        and inputs that are kept (recurrences keep float32 at least); None is the model's own.
        """
        raise NotImplementedError

    def initialize(self, seed: int) -> Self:
        """Fill the parameters from (seed, name), and project them if they are constrained."""
        initialize(self, self.spec.initial, seed, self.spec.depth)
        self.project_()
        return self

    def forward(
        self,
        tokens: Tokens,
        state: ModelState | None = None,
        documents: Documents | None = None,
        last: int | None = None,
    ) -> Output:
        """Logits for each token, and the state to go on from. Pass that state back with the tokens that follow.

        With `documents` nothing crosses from one document to another, and no state is returned. last: logits of so
        many last tokens only.
        """
        if documents is not None and state is not None:
            raise InputError("documents: a call that continues from a state reads one document; leave it out")
        if state is None and documents is None:
            state = self.initial_state(tokens.shape[0])
        context = self.context_of(tokens, state, documents)
        encoded = self.encode(tokens, state, context)
        hidden = encoded.hidden if last is None else encoded.hidden[:, -last:]
        logits = self.head(hidden, self.embedding.weight)
        return Output(logits, self._after(tokens, state, encoded), encoded.losses, encoded.metrics)

    def loss(
        self,
        tokens: Tokens,
        targets: Tokens,
        documents: RowDocuments | None = None,
        seed: int | None = None,
        z_loss: float = 0.0,
        first: int = 0,
    ) -> Loss:
        """Mean cross-entropy over targets other than -1, without a state and without storing all logits.

        seed: the randomness of a training step, which also turns on what belongs to training alone (`Context.seed`).
        z_loss: the weight of the mean of (log Z)² in the total, which keeps the logits' scale (PaLM section 5).
        first: the position of the first token, where other processes read the parts of the rows before it; documents
        are then those of the rows from their beginning on.
        """
        context = self.context_of(tokens, None, documents, seed, first)
        hidden, _, losses, metrics = self.encode(tokens, None, context)
        table = self.head.table(self.embedding.weight)
        head = (self.head.bias, self.spec.head.soft_cap)
        cross_entropy, z_term = linear_cross_entropy(
            hidden.flatten(0, 1), table, targets.flatten(), *head, z_loss, self.vocabulary
        )
        if z_loss:
            losses = {**losses, "z_loss": z_term}
        total = cross_entropy
        for value in losses.values():
            total = total + value
        return Loss(total, cross_entropy, losses, metrics)

    @torch.no_grad()
    def token_losses(
        self, tokens: Tokens, targets: Tokens, documents: RowDocuments | None = None, first: int = 0
    ) -> TokenLosses:
        """Nats of each target in float32; 0 where the target is -1. first: as for `loss`."""
        hidden = self.encode(tokens, None, self.context_of(tokens, None, documents, first=first)).hidden
        table = self.head.table(self.embedding.weight)
        head = (self.head.bias, self.spec.head.soft_cap)
        losses = linear_token_losses(hidden.flatten(0, 1), table, targets.flatten(), *head, self.vocabulary)
        return losses.view(targets.shape)

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
                        axis = -2 if role.kind == "writes" else -1
                        weight = module.get_parameter(name)
                        norm: Tensor = torch.linalg.vector_norm(
                            weight, dim=axis, keepdim=True, dtype=working_dtype(weight)
                        )
                        weight.div_(norm.clamp(min=_ZERO))

    def context_of(
        self,
        tokens: Tensor,
        state: "ModelState | None" = None,
        documents: Tensor | None = None,
        seed: int | None = None,
        first: int = 0,
    ) -> Context:
        """What the layers share in a call with these tokens [b t], which stand at `first` or where the state ends."""
        if documents is not None and not self.spec.packs_documents:
            raise InputError(f"documents: {self.spec.kind} reads one document a row; leave the documents out")
        begin = state.position if state is not None else first
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        if isinstance(begin, int):
            return Context(steps + begin, documents, tokens, seed, reach=begin + len(steps))
        positions = torch.tensor(begin, device=tokens.device)[:, None] + steps  # b t
        return Context(positions, documents, tokens, seed, reach=max(begin) + len(steps))

    @staticmethod
    def _after(tokens: Tensor, state: "ModelState | None", encoded: Encoded) -> "ModelState | None":
        if state is None or encoded.states is None:
            return None
        count, first = tokens.shape[1], state.position
        moved = first + count if isinstance(first, int) else tuple(each + count for each in first)
        return ModelState(moved, encoded.states)
