"""Parameters grouped by role. Decay pulls matrices, filters and tables towards zero, never gains, biases or decays."""

from typing import Any

from torch import nn

from windtunnel.init import roles

DECAYED_ROLES = frozenset({"embedding", "unembedding", "reads", "writes", "inner", "filter"})


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """At most two groups, decayed and not, each in the order of `model.named_parameters()`."""
    table = roles(model)
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decayed if table[name].kind in DECAYED_ROLES else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
