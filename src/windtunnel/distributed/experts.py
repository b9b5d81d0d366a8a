"""Expert parallelism: each process holds some of the experts, and tokens travel to the experts that they chose.

Every process routes its own rows, with the whole router, as one that holds all experts would: capacity, noise and
balance losses belong to its micro-batch. Rows, sorted by expert, go to those that hold them (all to all), come together
there with the rows of the other processes, and their results go the same way back (GShard, arXiv 2006.16668, section
3.2).
"""

import functools
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from windtunnel.errors import InputError
from windtunnel.mlps.experts import Experts, ExpertsLayer
from windtunnel.model import LanguageModel
from windtunnel.root import Model, ModelLayer

_STACKED = ("gate", "up", "down")


class Exchange(NamedTuple):
    """Processes that hold the experts together, equally many each."""

    group: Any
    parts: int


def check(spec: Model, parts: int) -> None:
    """Raise an `InputError` for a model whose experts cannot be shared out so."""
    if parts == 1:
        return
    counts = {block.mlp.experts for block in _blocks(spec) if isinstance(block.mlp, Experts)}
    if not counts:
        raise InputError(f"--mesh: expert={parts} divides experts, and this model has none; use shard")
    odd = [count for count in sorted(counts) if count % parts]
    if odd:
        raise InputError(f"--mesh: expert={parts} does not divide experts={odd[0]}")


def _blocks(spec: Model) -> tuple[Any, ...]:
    return spec.blocks if isinstance(spec, LanguageModel) else ()


def divided(model: ModelLayer) -> list[ExpertsLayer]:
    """The parts of a model whose experts are shared out."""
    return [module for module in model.modules() if isinstance(module, ExpertsLayer)]


def divide(model: ModelLayer, exchange: Exchange) -> None:
    """Leave a model that has no values yet one share of its experts, and let the others be asked for theirs."""
    for layer in divided(model):
        for name in _STACKED:
            whole = getattr(layer, name)
            if whole is not None:
                setattr(layer, name, nn.Parameter(whole.detach()[: len(whole) // exchange.parts]))
        layer.apply_experts = functools.partial(_elsewhere, exchange, layer.apply_experts)  # type: ignore[method-assign]


def _elsewhere(exchange: Exchange, here: Any, rows: Tensor, ends: Tensor) -> Tensor:
    """What the experts make of rows [m d], which are sorted by expert; `here` applies this process's own."""
    sent = torch.diff(ends, prepend=ends.new_zeros(1)).view(exchange.parts, -1)  # p e/p, rows of each expert
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent.contiguous(), group=exchange.group)
    out, back = sent.sum(1).tolist(), received.sum(1).tolist()
    arrived: Tensor = _Swap.apply(rows, out, back, exchange)  # type: ignore[no-untyped-call]
    order = _by_expert(received)
    results = here(arrived[order], received.sum(0).cumsum(0).to(ends.dtype))
    returned: Tensor = _Swap.apply(results[torch.argsort(order)], back, out, exchange)  # type: ignore[no-untyped-call]
    return returned


def _by_expert(counts: Tensor) -> Tensor:
    """The order that brings rows, which lie by process and expert (counts [p e]), together by expert."""
    expert = torch.arange(counts.shape[1], device=counts.device).repeat(len(counts))
    return torch.argsort(expert.repeat_interleave(counts.flatten().long()), stable=True)


class _Swap(torch.autograd.Function):
    """Rows [m d], of which `out` go to each process and `back` come; the gradient goes the other way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, out: list[int], back: list[int], exchange: Exchange) -> Tensor:
        ctx.out, ctx.back, ctx.exchange = out, back, exchange
        return _swapped(rows, out, back, exchange)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _swapped(gradient, ctx.back, ctx.out, ctx.exchange), None, None, None


def _swapped(rows: Tensor, out: list[int], back: list[int], exchange: Exchange) -> Tensor:
    came = rows.new_empty(sum(back), *rows.shape[1:])
    dist.all_to_all_single(came, rows.contiguous(), back, out, group=exchange.group)
    return came
