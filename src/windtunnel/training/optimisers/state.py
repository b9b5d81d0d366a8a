"""Optimisers' state as flat, named tensors: `blocks.0.mixer.q.weight/exp_avg`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from windtunnel.errors import InputError


def flatten_state(optimisers: Sequence[Optimizer], weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Every tensor of the optimisers' state, keyed by parameter name and quantity. weights: the parameters by name."""
    return {
        f"{name}/{quantity}": value
        for optimiser in optimisers
        for name, parameter in weights.items()
        if parameter in optimiser.state
        for quantity, value in optimiser.state[parameter].items()
        if value is not None
    }


def restore_state(
    optimisers: Sequence[Optimizer], weights: Mapping[str, nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    """Put back copies of what `flatten_state` took; unknown or missing parameters raise an `InputError`."""
    by_name: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in tensors.items():
        name, quantity = key.rsplit("/", 1)
        by_name[name][quantity] = value.clone()  # torch's optimisers would write into what they are given
    names = {parameter: name for name, parameter in weights.items()}
    unknown = set(by_name) - set(names.values())
    missing = set(names.values()) - set(by_name) if by_name else set()
    if unknown or missing:
        raise InputError(f"optimiser state: parameters {sorted(unknown | missing)} do not match the model's")
    for optimiser in optimisers:
        ordered = [names[parameter] for group in optimiser.param_groups for parameter in group["params"]]
        states = {index: by_name[name] for index, name in enumerate(ordered) if name in by_name}
        optimiser.state.clear()
        with torch.no_grad():
            optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
