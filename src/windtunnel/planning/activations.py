"""Bytes that autograd keeps for the backward pass, counted on the model itself, on the meta device.

Each different block is run once without memory; hooks note what is saved. Attention is counted as a fused kernel keeps
it (queries, keys, values, results, one number a row), never its maps. What cannot run without data is counted with
something of the same shape in its place, and said.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from windtunnel.mixers import Attention
from windtunnel.mlps import Dense, Experts, Gated
from windtunnel.model import Block, LanguageModel
from windtunnel.residuals import PreNorm, RouteFirst
from windtunnel.root import Model, ModelLayer

LONGEST = 2048  # tokens that a block is run at; beyond them, activations grow with the length


@dataclass(frozen=True)
class Activations:
    """Bytes of one token. blocks: kept of each layer. stream: what enters a layer, all that recomputing it needs.

    replaced: parts that were counted with another in their place.
    """

    blocks: tuple[float, ...]
    stream: float
    replaced: tuple[str, ...]

    @property
    def largest(self) -> float:
        """What is kept of the layer that keeps most."""
        return max(self.blocks)


def activations(spec: Model, length: int, dtype: torch.dtype) -> Activations:
    """Counted at one sequence of `length` tokens, in a precision."""
    stream = float(spec.width * dtype.itemsize)
    tokens = min(length, LONGEST)
    if not isinstance(spec, LanguageModel):
        return Activations((_kept(spec, tokens, dtype) / tokens / spec.depth,) * spec.depth, stream, ())
    counted: dict[Block, float] = {}
    replaced: dict[str, None] = {}
    for block in dict.fromkeys(spec.blocks):
        kept, names = _kept_by(spec, block, tokens, dtype)
        counted[block] = kept
        replaced.update(dict.fromkeys(names))
    return Activations(tuple(counted[block] for block in spec.blocks), stream, tuple(replaced))


def _kept_by(spec: LanguageModel, block: Block, length: int, dtype: torch.dtype) -> tuple[float, list[str]]:
    """Bytes a token that one block keeps: what two of them keep more than one. And what stood in for its parts."""
    rows, names = 0.0, []
    try:
        return _more(spec, block, length, dtype), []
    except RuntimeError:  # data decides what a part does, and there is none on the meta device
        if isinstance(block.mlp, Experts):
            names.append(block.mlp.kind)
            rows = 2.0 * block.mlp.active * spec.width * dtype.itemsize  # gathered before, mixed after
            block = _without_experts(block, block.mlp)
    try:
        return rows + _more(spec, block, length, dtype), names
    except RuntimeError:
        names.append(block.mixer.kind)
        return rows + _more(spec, block.replace(mixer=Attention(heads=1)), length, dtype), names


def _without_experts(block: Block, experts: Experts) -> Block:
    """The block with one MLP of the hidden width that a token meets."""
    hidden = experts.active * experts.hidden
    gated = Gated(hidden=hidden, activation=experts.activation)
    dense = Dense(hidden=hidden, activation=experts.activation, bias=False)
    residual = block.residual
    if isinstance(residual, RouteFirst):
        residual = PreNorm(norm=residual.norm)
    return block.replace(mlp=gated if experts.gated else dense, residual=residual)


def _more(spec: LanguageModel, block: Block, length: int, dtype: torch.dtype) -> float:
    two, one = (_kept(spec.replace(blocks=(block,) * count), length, dtype) for count in (2, 1))
    return (two - one) / length


def _kept(spec: Model, length: int, dtype: torch.dtype) -> int:
    """Bytes of the storages that a forward pass of the blocks leaves to the backward pass."""
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # a storage that is let go could give its place to another
    with torch.device("meta"):
        model: ModelLayer = spec.build()
        model = model.to(dtype)
        tokens = torch.zeros(1, length, dtype=torch.long)
        context = model.context_of(tokens)
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

        def note(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage.nbytes()
                held.append(saved)
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved), _FusedAttention():
            hidden = model.encode(tokens, None, context).hidden
    held.append(hidden)
    shared = {table.untyped_storage()._cdata for table in _tensors(list(context.tables.values()))}
    return sum(size for key, size in kept.items() if key not in shared)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


class _FusedAttention(TorchFunctionMode):
    """Puts in the place of SDPA, which on the meta device keeps its maps, what a fused kernel keeps."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return _Kept.apply(*args[:3])  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


class _Kept(torch.autograd.Function):
    """The shape of attention's result [b h t e]; keeps it, queries, keys, values and the rows' logsumexp."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, _ = q.shape
        if v.shape[-1] == q.shape[-1]:
            mixed = torch.empty_like(q)  # laid out as the queries are: merging heads may copy nothing
        else:
            mixed = q.new_empty(batch, length, heads, v.shape[-1]).transpose(1, 2)
        ctx.save_for_backward(q, k, v, mixed, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return mixed
