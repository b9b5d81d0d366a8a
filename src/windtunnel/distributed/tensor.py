"""Tensor parallelism: every block is cut across processes, and its two sums are made whole again.

The cut is a spec: a block of the same kinds with a part of the heads and of the hidden units. A process builds that
block, so that no layer knows of the others. What a parameter's part is follows from its role: matrices that read the
stream are cut by rows of outputs, those that write to it by columns of inputs; single key and value heads, norms of
heads and what else does not depend on the number of heads is held by all. The input of a mixer or an MLP is the same
everywhere and its gradient summed; the product with the writing matrix is summed, then its bias added once (Shoeybi et
al. 2019, arXiv 1909.08053, section 3). Tables, residual norms and the head are computed by all alike.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from windtunnel.errors import InputError
from windtunnel.init import Linear
from windtunnel.mixers import Attention, NormalizedAttention
from windtunnel.mixers.attention import AttentionLayer
from windtunnel.mlps import Dense, Gated, NormalizedGated
from windtunnel.model import Block, LanguageModel
from windtunnel.root import Model, ModelLayer

_MIXERS, _MLPS = (Attention, NormalizedAttention), (Dense, Gated, NormalizedGated)


def cut(spec: Model, parts: int) -> Model:
    """The model that one of `parts` processes builds. Raises `InputError` for what cannot be cut, by name."""
    if parts == 1:
        return spec
    if not isinstance(spec, LanguageModel):
        raise InputError(f"--mesh: tensor={parts} cuts language models, not a {spec.kind}")
    return spec.replace(blocks=tuple(_cut_block(block, spec.width, parts) for block in spec.blocks))


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


def join(model: ModelLayer, group: Any) -> None:
    """Let the blocks of a cut model take part in the sums of a group of processes."""
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
        return _total(gradient, ctx.group), None


class _Summed(torch.autograd.Function):
    """The sum over the processes, whose gradient is that of each term."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        return _total(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _total(values: Tensor, group: Any) -> Tensor:
    summed = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed, group=group)
    return summed
