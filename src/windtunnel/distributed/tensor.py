"""Tensor parallelism: every block is cut across processes, and its two sums are made whole again; so are the tables.

The cut is a spec: a block of the same kinds with a part of the heads and of the hidden units, in a model with a part of
the vocabulary. A process builds that, so that no layer knows of the others. What a parameter's part is follows from its
role: matrices that read the stream are cut by rows of outputs, those that write to it by columns of inputs; single key
and value heads, norms of heads and what else does not depend on the number of heads is held by all. The input of a
mixer or an MLP is the same everywhere and its gradient summed; the product with the writing matrix is summed, then its
bias added once (Shoeybi et al. 2019, arXiv 1909.08053, section 3).

Of the tables a process holds the rows of its tokens. It looks up those, where the others have zeros, and forms the
logits of those, from which the loss needs three numbers a token. Residual norms and additive positions are computed by
all alike.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from windtunnel.distributed.places import share
from windtunnel.embedding import EmbeddingLayer
from windtunnel.errors import InputError
from windtunnel.init import Linear
from windtunnel.kernels.linear_cross_entropy import Columns
from windtunnel.mixers import Attention, NormalizedAttention
from windtunnel.mixers.attention import AttentionLayer
from windtunnel.mlps import Dense, Gated, NormalizedGated
from windtunnel.model import Block, LanguageModel
from windtunnel.root import Model, ModelLayer

_MIXERS, _MLPS = (Attention, NormalizedAttention), (Dense, Gated, NormalizedGated)


def cut(spec: Model, parts: int, index: int = 0) -> Model:
    """The model that one of `parts` processes builds. Raises `InputError` for what cannot be cut, by name.

    The last part of the vocabulary may be short.
    """
    if parts == 1:
        return spec
    if not isinstance(spec, LanguageModel):
        raise InputError(f"--mesh: tensor={parts} cuts language models, not a {spec.kind}")
    if share(spec.vocab, parts, parts - 1)[1] == 0:
        raise InputError(f"--mesh: tensor={parts} leaves a process without a token of vocab={spec.vocab}")
    blocks = tuple(_cut_block(block, spec.width, parts) for block in spec.blocks)
    return spec.replace(blocks=blocks, vocab=share(spec.vocab, parts, index)[1])


def _cut_block(block: Block, width: int, parts: int) -> Block:
    mixer, mlp = block.mixer, block.mlp
    if not isinstance(mixer, Attention) or type(mixer) not in _MIXERS or mixer.alibi is not None:
        what = "ALiBi, whose slopes count all heads" if getattr(mixer, "alibi", None) else f"the mixer {mixer.kind}"
        raise InputError(f"--mesh: tensor={parts} does not cut {what}; use shard and replicate")
    whole = mixer.build(width)
    heads = {"heads": mixer.heads, "kv_heads": whole.kv_heads}
    odd = [f"{name}={count}" for name, count in heads.items() if count % parts and (name, count) != ("kv_heads", 1)]
    if odd:
        raise InputError(f"--mesh: tensor={parts} does not divide {' and '.join(odd)}")
    kept = max(1, whole.kv_heads // parts)
    sizes = {"heads": mixer.heads // parts, "kv_heads": kept, "head_width": whole.head_width}
    fewer = mixer.replace(**sizes, scale=whole.scale, base_head_width=None)
    return block.replace(mixer=fewer, mlp=None if mlp is None else _cut_mlp(mlp, parts))


def _cut_mlp(mlp: Any, parts: int) -> Any:
    if type(mlp) not in _MLPS:
        raise InputError(f"--mesh: tensor={parts} does not cut the MLP {mlp.kind}; use shard and replicate")
    if mlp.hidden % parts:
        raise InputError(f"--mesh: tensor={parts} does not divide hidden={mlp.hidden}")
    return mlp.replace(hidden=mlp.hidden // parts)


def join(model: ModelLayer, group: Any, parts: int, index: int) -> None:
    """Let the blocks and the tables of a cut model take part in the sums of a group of processes."""
    columns = Columns(
        share(model.spec.vocab, parts, index)[0],
        share(model.spec.vocab, parts, 0)[1],
        functools.partial(_reduced, group=group, by=dist.ReduceOp.MAX),
        functools.partial(_reduced, group=group),
    )
    model.vocabulary = columns
    table: Any = model.embedding
    table.vectors = functools.partial(_summed_vectors, table, table.vectors, columns, group)
    for block in model.get_submodule("blocks").children():
        for name in ("mixer", "mlp"):
            part = getattr(block, name)
            if part is None:
                continue
            part.register_forward_pre_hook(functools.partial(_share_input, group))
            writing: Any = part.o if isinstance(part, AttentionLayer) else part.down
            writing.forward = functools.partial(_summed_product, writing, group)


def held_by_all(whole: Mapping[str, torch.Size], model: nn.Module) -> set[str]:
    """Parameters of mixers and MLPs that are not cut, whose gradients are therefore sums over the processes.

    whole: the shapes of the model that is not cut.
    """
    inside = {
        name
        for name, parameter in model.named_parameters()
        if (".mixer." in name or ".mlp." in name) and parameter.shape == whole[name]
    }
    return inside - {name for name in inside if name.endswith((".o.bias", ".down.bias"))}


def _summed_vectors(table: EmbeddingLayer, here: Any, columns: Columns, group: Any, tokens: Tensor) -> Tensor:
    rows, held = columns.own(tokens, len(table.weight))
    x: Tensor = _Summed.apply(here(rows) * held.unsqueeze(-1), group)  # type: ignore[no-untyped-call]
    return x


def _share_input(group: Any, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    shared: Tensor = _Shared.apply(inputs[0], group)  # type: ignore[no-untyped-call]
    return (shared, *inputs[1:])


def _summed_product(linear: Linear, group: Any, x: Tensor) -> Tensor:
    y: Tensor = _Summed.apply(F.linear(x, linear.weight), group)  # type: ignore[no-untyped-call]
    return y if linear.bias is None else y + linear.bias


class _Shared(torch.autograd.Function):
    """The identity, whose gradient is summed over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _reduced(gradient, ctx.group), None


class _Summed(torch.autograd.Function):
    """The sum over the processes, whose gradient is that of each term."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        return _reduced(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _reduced(values: Tensor, group: Any, by: Any = dist.ReduceOp.SUM) -> Tensor:
    found = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(found, by, group=group)
    return found
