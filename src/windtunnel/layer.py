"""What every layer is given and gives back: the context of a call, roles of parameters, costs."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

EMPTY: Mapping[str, Tensor] = MappingProxyType({})

RoleKind = Literal["embedding", "unembedding", "reads", "writes", "inner", "filter", "gain", "bias", "decay"]


class Role(NamedTuple):
    """What a parameter is for. Initialisation, optimiser groups, projection and sharding are tables over `kind`.

    kind:     reads [out, width] and writes [width, in] touch the residual stream; inner matrices do not. A filter is
              multiplied element by element (the taps of a depth-wise convolution): no matrix, but decayed like one.
    fan_in:   number of inputs that are summed.
    fan_out:  number of outputs; of an embedding, its rows.
    constant: the initial value where the layer itself fixes it (gains: 1).
    deviation: standard deviation where the layer itself fixes it (the lambda vectors of DiffAttention: 0.1).
    draw: the initial values themselves, from (shape, random stream), where the layer fixes another distribution.
    mechanism: the ledger's row that the parameter belongs to; filled in where a whole model is read (`init.roles`).
    """

    kind: RoleKind
    fan_in: int = 1
    constant: float | None = None
    deviation: float | None = None
    draw: Callable[[torch.Size, torch.Generator], Tensor] | None = None
    fan_out: int = 1
    mechanism: str | None = None


class Cost(NamedTuple):
    """Floating-point operations of one mechanism, per token, forward; a multiply-accumulate is 2.

    model:       the algorithm's matrix products, counting only attended pairs (no recomputation).
    dense:       the same without the causal or window discount (PaLM's convention; what counters see).
    hardware:    what the implementation in use executes.
    elementwise: element-wise, scan and transcendental operations, 1 each.
    recomputed:  hardware operations that the backward pass does again (flash attention forms its scores twice).
    stored:      the same mechanism where attention maps are kept (training on a CPU, kernels/blocked.py and banded.py);
                 None where that changes nothing.
    training:    products of a forward pass in training alone (router noise), in none of the columns above.
    """

    mechanism: str
    model: float = 0.0
    dense: float = 0.0
    hardware: float = 0.0
    elementwise: float = 0.0
    recomputed: float = 0.0
    stored: "Cost | None" = None
    training: float = 0.0

    def times(self, share: float) -> "Cost":
        """The same mechanism for a share of the tokens."""
        model, dense, hardware, elementwise, recomputed = (share * each for each in self[1:6])
        stored = self.stored.times(share) if self.stored is not None else None
        return Cost(self.mechanism, model, dense, hardware, elementwise, recomputed, stored)

    @classmethod
    def matmul(cls, mechanism: str, operations: float, elementwise: float = 0.0) -> "Cost":
        """A product whose three counts agree."""
        return cls(mechanism, operations, operations, operations, elementwise)


@dataclass(frozen=True)
class Context:
    """What the layers of one forward pass share.

    positions: [t], the same for every row, or [b t] where rows stand at different places (decoding many requests at
    once). reach: the largest position and one. documents: ids [b s], or None if no row crosses a boundary; they end
    with the last token of this call and begin before its first where it reads a later part of the rows (s > t).
    tokens: [b t] ids (hash routing reads them). layer: the index of the block that is called.
    seed: the randomness of a training step; None in evaluation and in decoding, where every layer is deterministic and
    nothing that belongs to training alone applies (router noise, expert capacity).
    tables: values that layers share within this pass (rotary tables, masks), filled on first use.
    """

    positions: Tensor
    documents: Tensor | None = None
    tokens: Tensor | None = None
    seed: int | None = None
    layer: int = 0
    reach: int = 0
    tables: dict[Any, Any] = field(default_factory=dict, repr=False)

    def at(self, layer: int) -> "Context":
        """The same for another block. Decoding calls this for every block and token, so it is not `replace`."""
        moved = object.__new__(Context)
        moved.__dict__.update(self.__dict__, layer=layer)
        return moved

    @property
    def starts(self) -> Tensor | None:
        """[b t], True at the first token of each document but not at the beginning of a row; None without documents."""
        return None if self.documents is None else self.row_starts[:, -self.positions.shape[-1] :]

    @property
    def row_starts(self) -> Tensor:
        """`starts` of the rows as far as `documents` has them, [b s]."""
        assert self.documents is not None
        if "starts" not in self.tables:
            before = torch.cat([self.documents[:, :1], self.documents[:, :-1]], dim=1)
            self.tables["starts"] = self.documents != before
        starts: Tensor = self.tables["starts"]
        return starts

    def generator(self, name: str) -> torch.Generator:
        """A random stream on the CPU for (seed, layer, name); only where there is a seed."""
        digest = hashlib.sha256(f"{self.seed}/{self.layer}/{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def mask(self, keys: int, window: int | None = None) -> Tensor | None:
        """Which keys each query may see, [t s] or [b 1 t s] (True = attend); None where plain causal order suffices.

        The last query is aligned with the last key. `window` counts keys including the query's own position.
        """
        queries = self.positions.shape[-1]
        if self.documents is None and (window is None or window >= keys):
            return None
        name = ("mask", keys, window)
        if name not in self.tables:
            self.tables[name] = self._build_mask(queries, keys, window)
        mask: Tensor = self.tables[name]
        return mask

    def _build_mask(self, queries: int, keys: int, window: int | None) -> Tensor:
        device = self.positions.device
        query = torch.arange(keys - queries, keys, device=device)[:, None]
        key = torch.arange(keys, device=device)[None, :]
        mask = key <= query
        if window is not None:
            mask = mask & (query - key < window)
        if self.documents is not None:
            ids = self.documents[:, -keys:]
            mask = mask & (ids[:, None, -queries:, None] == ids[:, None, None, :])
        return mask


class Layer(nn.Module):
    """A module that declares the role of each of its own parameters in `roles`.

    mechanism: the ledger's row for its parameters, and for those of the layers inside it that name none.
    """

    roles: dict[str, Role]
    mechanism: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.roles = {}

    def declare(self, name: str, shape: tuple[int, ...], role: Role) -> nn.Parameter:
        """An uninitialised parameter, to be assigned to the attribute `name`; its role is noted."""
        self.roles[name] = role
        return nn.Parameter(torch.empty(shape))

    def idle_parameters(self) -> int:
        """Matrix entries that a given token does not meet, parts inside left out (experts not chosen)."""
        return 0

    def costs(self, length: int) -> list[Cost]:
        """Forward cost per token at a context of `length`, one entry a mechanism."""
        return []

    def state_bytes(self, length: int, element: int = 4) -> int:
        """Bytes of decoding state of one sequence after `length` tokens, with elements of `element` bytes."""
        return 0


class MixerLayer(Layer):
    """Base of mixer modules.

    `forward(x [b t d], context, state) -> (y [b t d], state)`. With state None nothing is kept and None returns.
    States are NamedTuples of tensors; a call never changes the state that it was given.
    """

    def initial_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> Any:
        """The state before the first token."""
        raise NotImplementedError

    def reserve(self, batch: int, device: torch.device, dtype: torch.dtype, capacity: int, chunk: int) -> Any:
        """A state that is written in place, for `capacity` tokens a row and calls of at most `chunk` tokens.

        States of fixed size are their own buffers. Where a mixer's state grows and it offers none, rows that stand at
        different places cannot be decoded together.
        """
        return self.initial_state(batch, device, dtype)


class MLPOutput(NamedTuple):
    """hidden [b t d]; losses (weighted) and metrics by name, empty for dense MLPs."""

    hidden: Tensor
    losses: Mapping[str, Tensor] = EMPTY
    metrics: Mapping[str, Tensor] = EMPTY


class MLPLayer(Layer):
    """Base of MLP modules: `forward(x [b t d], context, route) -> MLPOutput`.

    route: a decision made elsewhere by this layer's own `route`; only experts have one.
    """

    mechanism = "MLP"

    def route(self, x: Tensor, context: Context) -> Any:
        """What `forward` takes as `route`, decided from other values [b t d] than its own; None: nothing to decide."""
        return None


def mean_attended(length: int, window: int | None = None) -> float:
    """Mean number of keys that a query sees under a causal mask, its own included."""
    if window is None or window >= length:
        return (length + 1) / 2
    return window - window * (window - 1) / (2 * length)
