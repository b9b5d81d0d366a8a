"""A model's parameters over the mesh, and this process's parts of them.

Blocks are FSDP2 units: their weights are gathered for the forward and the backward pass of each block and dropped in
between. Embedding, last norm and head belong to the root and stay from its forward to its backward pass. Optimisers
never see a DTensor: they work on the local part of each parameter, in the same memory, and whatever needs more than its
elements (norms, parameter scaling) is summed over the mesh here.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from windtunnel.distributed.experts import Exchange, divide, divided
from windtunnel.distributed.places import Place, share
from windtunnel.distributed.sequence import Line, spread
from windtunnel.distributed.team import ALONE, Team
from windtunnel.distributed.tensor import cut, held_by_all, join
from windtunnel.init import initial_values, roles
from windtunnel.root import Model, ModelLayer

_CALLS = ("loss", "token_losses")


def build(spec: Model, seed: int, team: Team, device: torch.device) -> ModelLayer:
    """The initialised model of `spec`, of which this process holds its share.

    Nothing larger than one whole parameter is ever in memory; each is drawn from (seed, name), whatever the mesh.
    """
    if team.size == 1:
        return spec.build().initialize(seed)
    with torch.device("meta"):
        whole, model = spec.build(), cut(spec, team.mesh.tensor, team.index("tensor")).build()
    model.spec = spec
    if team.mesh.tensor > 1:
        join(model, team.devices.get_group("tensor"), team.mesh.tensor, team.index("tensor"))
    if team.mesh.context > 1:
        spread(model, Line(team.devices.get_group("context"), team.index("context"), team.mesh.context))
    if team.mesh.expert > 1:
        divide(model, Exchange(team.devices.get_group("expert"), team.mesh.expert))
    _shard(model, team)
    model.to_empty(device=device)
    table, places = roles(whole), _places(model, team)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = initial_values(name, torch.Size(places[name].shape), table[name], spec.initial, seed, spec.depth)
            _local(parameter).copy_(drawn[places[name].slices])
    model.project_()
    return model


def _shard(model: ModelLayer, team: Team) -> None:
    axes = ("replicate", "shard") if team.mesh.replicate > 1 else ("shard",)
    if team.mesh.expert > 1:
        for mlp in divided(model):
            _shard_unit(mlp.router, team.weights[axes])
            _shard_unit(mlp, team.devices[axes])
    for unit in [*model.get_submodule("blocks").children(), model]:
        _shard_unit(unit, team.weights[axes])
    for call in _CALLS:
        register_fsdp_forward_method(model, call)


def _shard_unit(unit: nn.Module, mesh: Any) -> None:
    if next(unit.parameters(), None) is None:
        return
    sharded: Any = fully_shard(unit, mesh=mesh)
    # Gradients are summed: losses carry their share of the whole batch already.
    sharded.set_force_sum_reduction_for_comms(True)
    sharded.set_gradient_divide_factor(1.0)


class Parts:
    """The parameters of a model as this process holds them, by name. Alone, they are the model's own."""

    def __init__(self, model: Any, team: Team = ALONE) -> None:
        self.team, self.model = team, model
        named = dict(model.named_parameters())
        self.weights: dict[str, nn.Parameter] = named
        self.places: dict[str, Place] = {}
        if team.size > 1:
            self.weights = {name: nn.Parameter(_local(each).detach()) for name, each in named.items()}
            self.places = _places(model, team)
        self._summed = sorted(held_by_all(_shapes(model), model)) if team.mesh.tensor > 1 else []
        self._of = {parameter: self.weights[name] for name, parameter in named.items()}
        self._names = {id(weight): name for name, weight in self.weights.items()}

    def adopt(self, optimisers: Sequence[torch.optim.Optimizer]) -> None:
        """Let optimisers that were built for the model work on the parts."""
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["params"] = [self._of[parameter] for parameter in group["params"]]

    def take_gradients(self) -> None:
        """Bring the gradients of the model's parameters to their parts."""
        if self.team.size > 1:
            for parameter, weight in self._of.items():
                weight.grad = None if parameter.grad is None else _local(parameter.grad)
            for name in self._summed:
                if self.weights[name].grad is not None:
                    dist.all_reduce(self.weights[name].grad, group=self.team.devices.get_group("tensor"))

    def forget_gradients(self) -> None:
        """Drop all gradients."""
        for parameter, weight in self._of.items():
            parameter.grad = weight.grad = None

    def settle(self) -> None:
        """After a forward pass without a backward pass: drop what was gathered, or it would outlive the next update."""
        if isinstance(self.model, FSDPModule):
            self.model.reshard()

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The global norm of the parts' gradients."""
        if self.team.size == 1:
            return nn.utils.get_total_norm(gradients)
        owned = [
            weight.grad
            for name, weight in self.weights.items()
            if weight.grad is not None and weight.numel() and self.places[name].owned
        ]
        norms = torch.stack(torch._foreach_norm(owned)) if owned else gradients[0].new_zeros(1)
        return self.team.total(norms.square().sum()).sqrt()

    def mean_squares(self, values: Sequence[tuple[nn.Parameter, Tensor]]) -> Tensor:
        """The mean square of each tensor, given by its part and the parameter that it belongs to; [n]."""
        if self.team.size == 1:
            return torch.stack([part.square().mean() for _, part in values])
        places = [self.places[self._names[id(weight)]] for weight, _ in values]
        sums = [
            part.square().sum() if place.owned else part.new_zeros(())
            for place, (_, part) in zip(places, values, strict=True)
        ]
        sizes = torch.tensor([torch.Size(place.shape).numel() for place in places], dtype=sums[0].dtype)
        return self.team.total(torch.stack(sums)) / sizes.to(sums[0].device)


class Scorer(nn.Module):
    """A model for `evaluate_loss`: each process scores its rows of a batch, and all see all losses."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.model: Any = parts.model
        self.parts = parts

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Nats of each target [b t]; rows without a target fill up a batch that does not divide."""
        count, readers = len(tokens), self.parts.team.readers
        padding = (0, 0, 0, -count % readers)
        tokens, targets = nn.functional.pad(tokens, padding), nn.functional.pad(targets, padding, value=-1)
        team, mesh = self.parts.team, self.parts.team.mesh
        rows, columns = team.rows(len(tokens)), team.columns(tokens.shape[1])
        mine = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        losses: Tensor = self.model.token_losses(tokens[mine], targets[mine], first=columns.start)
        self.parts.settle()
        every = team.gathered(losses).view(readers, mesh.context, mesh.tensor, *losses.shape)[:, :, 0]  # r c b t
        return every.transpose(1, 2).flatten(2).flatten(0, 1)[:count]


def _local(tensor: Any) -> Tensor:
    with torch.no_grad():
        part: Tensor = tensor.to_local()
    return part


def _shapes(model: ModelLayer) -> dict[str, torch.Size]:
    """The shapes of the parameters of the model that is not cut."""
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in model.spec.build().named_parameters()}


def _places(model: ModelLayer, team: Team) -> dict[str, Place]:
    shapes, cut_axis = _shapes(model), "tensor" if team.mesh.tensor > 1 else "expert"
    named = model.named_parameters()
    return {name: _place(parameter, tuple(shapes[name]), team, cut_axis) for name, parameter in named}


def _place(parameter: nn.Parameter, whole: tuple[int, ...], team: Team, cut_axis: str) -> Place:
    """Where the local part lies: first it is cut along the axis that differs, then FSDP2 shards the first."""
    part, offset = tuple(parameter.shape), [0] * len(whole)
    for axis, (size, all_of_it) in enumerate(zip(part, whole, strict=True)):
        if size != all_of_it:
            parts = getattr(team.mesh, cut_axis)
            offset[axis] = share(all_of_it, parts, team.index(cut_axis))[0]
    mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
    start, length = share(part[0], mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1))
    offset[0] += start
    copies = team.index("replicate") + (team.index("tensor") if part == whole else 0)
    place = Place(whole, tuple(offset), (length, *part[1:]), owned=copies == 0)
    assert place.extent == tuple(_local(parameter).shape), f"FSDP2 cuts {part} otherwise than expected"
    return place
