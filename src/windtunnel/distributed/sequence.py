"""Context parallelism: each process holds the next part of every row, and the mixers reach across.

What is not a mixer sees a token alone, so that a part of a row is like a row. What a mixer needs of the parts before
its own, it is given as the state that it goes on from when it decodes, so that no mixer knows of the others:

- softmax attention: the keys and values of all processes before this one, gathered at once;
- recurrences, state spaces and linear attention: their state, of fixed size, from the process before, one after
  another;
- any other mixer: the inputs of the processes before, over which it is computed again. That saves it no work, but the
  memory and the work of everything else is divided.

Gradients go the same way back. They are made contiguous before they travel: gloo sums what lies behind a strided
tensor, not the tensor, and says nothing.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from windtunnel.errors import InputError
from windtunnel.layer import Context, MixerLayer
from windtunnel.mixers.attention import AttentionLayer, NormalizedAttentionLayer
from windtunnel.mixers.base import KeyValues
from windtunnel.mixers.differential import DiffAttentionLayer
from windtunnel.mixers.differential_v2 import DiffAttentionV2Layer
from windtunnel.mixers.linear import LinearAttentionLayer
from windtunnel.mixers.lru import LRULayer
from windtunnel.mixers.mamba import MambaLayer
from windtunnel.mixers.nothing import NothingLayer
from windtunnel.mixers.recurrent import RecurrentLayer
from windtunnel.mlps.routers import RouterLayer
from windtunnel.model import LanguageModel
from windtunnel.root import Model, ModelLayer

# By exact type: what inherits from these may look at more than they do.
_GATHER_KEYS = (AttentionLayer, NormalizedAttentionLayer, DiffAttentionLayer, DiffAttentionV2Layer)
_PASS_STATES = (RecurrentLayer, LRULayer, MambaLayer, LinearAttentionLayer)


class Line(NamedTuple):
    """Processes that hold the parts of the same rows one after another; this one holds part `place`."""

    group: Any
    place: int
    parts: int


def check(spec: Model, parts: int, length: int) -> None:
    """Raise an `InputError` for what cannot be trained in so many parts of rows of `length` tokens."""
    if parts == 1:
        return
    if length % parts:
        raise InputError(f"--mesh: context={parts} does not divide rows of {length} tokens; take another --context")
    if not isinstance(spec, LanguageModel):
        raise InputError(f"--mesh: context={parts} divides the rows of language models, not of a {spec.kind}")
    with torch.device("meta"):
        if any(isinstance(module, RouterLayer) for module in spec.build().modules()):
            raise InputError(
                f"--mesh: context={parts} would divide the tokens among which experts balance their load; use expert, "
                "shard and replicate"
            )


def spread(model: ModelLayer, line: Line) -> None:
    """Let every mixer of a model that reads one part of each row see the parts before it."""
    for block in model.get_submodule("blocks").children():
        mixer: Any = block.mixer
        if isinstance(mixer, NothingLayer):
            continue
        route = _Inputs if type(mixer) not in _GATHER_KEYS + _PASS_STATES else _States
        before, after = (_Keys if type(mixer) in _GATHER_KEYS else route)(line).hooks
        mixer.register_forward_pre_hook(before)
        mixer.register_forward_hook(after)


class _Route:
    """What is done to a mixer's arguments before it is called, and to its output after."""

    def __init__(self, line: Line) -> None:
        self.line = line

    @property
    def hooks(self) -> tuple[Any, Any]:
        return self._before, self._after

    def _before(self, mixer: MixerLayer, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, context, *_ = inputs
        return self.arguments(mixer, x, context)

    def _after(self, mixer: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Any]) -> tuple[Tensor, None]:
        return self.result(*output), None

    def arguments(self, mixer: MixerLayer, x: Tensor, context: Context) -> tuple[Any, ...]:
        """(x, context, state)."""
        raise NotImplementedError

    def result(self, y: Tensor, state: Any) -> Tensor:
        """The mixer's output for this process's tokens."""
        return y


class _Keys(_Route):
    def arguments(self, mixer: MixerLayer, x: Tensor, context: Context) -> tuple[Any, ...]:
        return x, context, _Elsewhere(self.line)


class _Elsewhere(NamedTuple):
    """Keys and values in other processes; what is extended by this process's own is here."""

    line: Line

    def extend(self, keys: Tensor, values: Tensor, context: Context) -> KeyValues:
        """All up to these, [b g s k] and [b g s e]."""
        return KeyValues(*gathered(self.line, 2, keys, values))


class _States(_Route):
    def arguments(self, mixer: MixerLayer, x: Tensor, context: Context) -> tuple[Any, ...]:
        first = mixer.initial_state(x.shape[0], x.device, next(mixer.parameters()).dtype)
        if self.line.place == 0:
            return x, context, first
        return x, context, type(first)(*_Receive.apply(x, self.line, *first))  # type: ignore[no-untyped-call]

    def result(self, y: Tensor, state: Any) -> Tensor:
        if self.line.place + 1 == self.line.parts:
            return y
        sent: Tensor = _Send.apply(self.line, y, *state)  # type: ignore[no-untyped-call]
        return sent


class _Inputs(_Route):
    def arguments(self, mixer: MixerLayer, x: Tensor, context: Context) -> tuple[Any, ...]:
        whole = context.tables.get("whole rows")
        if whole is None:
            positions = torch.arange(context.reach, device=x.device)
            whole = Context(positions, context.documents, seed=context.seed, reach=context.reach)
            context.tables["whole rows"] = whole
        return gathered(self.line, 1, x)[0], whole.at(context.layer), None

    def result(self, y: Tensor, state: Any) -> Tensor:
        return y.chunk(self.line.place + 1, 1)[-1]


def gathered(line: Line, axis: int, *parts: Tensor) -> tuple[Tensor, ...]:
    """Tensors [.. t ..] of all processes up to this one, put together along an axis; of one dtype and shape in all."""
    every: tuple[Tensor, ...] = _Gather.apply(line, axis, *parts)  # type: ignore[no-untyped-call]
    return every


class _Gather(torch.autograd.Function):
    """Every part's gradient is the sum over the processes that read it."""

    @staticmethod
    def forward(ctx: Any, line: Line, axis: int, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.line, ctx.axis, ctx.shapes = line, axis, [part.shape for part in parts]
        own = torch.cat([part.reshape(-1) for part in parts])
        every = own.new_empty(line.parts, len(own))
        dist.all_gather(list(every.unbind()), own, group=line.group)
        seen = torch.split(every[: line.place + 1], [part.numel() for part in parts], 1)
        return tuple(
            torch.cat([row.view(shape) for row in rows], axis) for rows, shape in zip(seen, ctx.shapes, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        line: Line = ctx.line
        sizes = [shape.numel() for shape in ctx.shapes]
        every = gradients[0].new_zeros(line.parts, sum(sizes))
        for gradient, places in zip(gradients, torch.split(every, sizes, 1), strict=True):
            for row, part in zip(places, gradient.chunk(line.place + 1, ctx.axis), strict=False):
                row.copy_(part.reshape(-1))
        found = torch.empty_like(every)  # row by row: what each process has for this one
        dist.all_to_all_single(found, every, group=line.group)
        parts = torch.split(found.sum(0), sizes)
        return None, None, *(part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True))


class _Receive(torch.autograd.Function):
    """The state of the process before. x: whatever needs a gradient here, so that the state's is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, line: Line, *like: Tensor) -> tuple[Tensor, ...]:
        ctx.line = line
        return tuple(_received(each, line, line.place - 1) for each in like)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        for gradient in gradients:
            _send(gradient, ctx.line, ctx.line.place - 1)
        return (None, None, *(None for _ in gradients))


class _Send(torch.autograd.Function):
    """y as it is; the state goes to the next process, and its gradient comes from there."""

    @staticmethod
    def forward(ctx: Any, line: Line, y: Tensor, *state: Tensor) -> Tensor:
        ctx.line = line
        ctx.save_for_backward(*state)  # also so that recomputation, which ends with the last saved tensor, sends again
        for each in state:
            _send(each, line, line.place + 1)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        line: Line = ctx.line
        return None, gradient, *(_received(each, line, line.place + 1) for each in ctx.saved_tensors)


def _send(values: Tensor, line: Line, to: int) -> None:
    if values.numel():
        dist.send(values.detach().contiguous(), group=line.group, group_dst=to)


def _received(like: Tensor, line: Line, source: int) -> Tensor:
    values = torch.empty_like(like, memory_format=torch.contiguous_format)
    if values.numel():
        dist.recv(values, group=line.group, group_src=source)
    return values
