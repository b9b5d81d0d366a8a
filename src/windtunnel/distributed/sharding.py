"""A model's parameters over the mesh, and this process's parts of them.

Blocks are FSDP2 units: their weights are gathered for the forward and the backward pass of each block and dropped in
between. Embedding, last norm and head belong to the root and stay from its forward to its backward pass. Optimisers
never see a DTensor: they work on the local part of each parameter, in the same memory, and whatever needs more than its
elements (norms, parameter scaling) is summed over the mesh here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from windtunnel.distributed.places import Place, share
from windtunnel.distributed.team import ALONE, Team
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
        model = spec.build()
    _shard(model, team)
    model.to_empty(device=device)
    table = roles(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = initial_values(name, parameter.shape, table[name], spec.initial, seed, spec.depth)
            place = _place(parameter, team)
            _local(parameter).copy_(drawn[place.slices])
    model.project_()
    return model


def _shard(model: ModelLayer, team: Team) -> None:
    axes = ("replicate", "shard") if team.mesh.replicate > 1 else ("shard",)
    mesh = team.devices[axes]
    for unit in [*model.get_submodule("blocks").children(), model]:
        sharded: Any = fully_shard(unit, mesh=mesh)
        # Gradients are summed: losses carry their share of the whole batch already.
        sharded.set_force_sum_reduction_for_comms(True)
        sharded.set_gradient_divide_factor(1.0)
    for call in _CALLS:
        register_fsdp_forward_method(model, call)


class Parts:
    """The parameters of a model as this process holds them, by name. Alone, they are the model's own."""

    def __init__(self, model: nn.Module, team: Team = ALONE) -> None:
        self.team, self.model = team, model
        named = dict(model.named_parameters())
        self.weights: dict[str, nn.Parameter] = named
        self.places: dict[str, Place] = {}
        if team.size > 1:
            self.weights = {name: nn.Parameter(_local(each).detach()) for name, each in named.items()}
            self.places = {name: _place(each, team) for name, each in named.items()}
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
        rows = self.parts.team.rows(len(tokens))
        mine = slice(rows.start, rows.stop)
        losses: Tensor = self.model.token_losses(tokens[mine], targets[mine])
        self.parts.settle()
        return self.parts.team.gathered(losses)[:count]


def _local(tensor: Any) -> Tensor:
    with torch.no_grad():
        part: Tensor = tensor.to_local()
    return part


def _place(parameter: nn.Parameter, team: Team) -> Place:
    shape = tuple(parameter.shape)
    offset, length = share(shape[0], team.mesh.shard or 1, team.index("shard"))
    place = Place(shape, (offset, *[0] * (len(shape) - 1)), (length, *shape[1:]), team.index("replicate") == 0)
    assert place.extent == tuple(_local(parameter).shape), f"FSDP2 cuts {shape} otherwise than expected"
    return place
