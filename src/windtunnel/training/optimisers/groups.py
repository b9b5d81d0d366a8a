"""Parameters grouped by role. Decay pulls matrices, filters and tables towards zero, never gains, biases or decays."""

from typing import Any

from torch import nn

from windtunnel.init import roles
from windtunnel.mup import Family, MuP, mup_of

DECAYED_ROLES = frozenset({"embedding", "unembedding", "reads", "writes", "inner", "filter"})


def parameter_groups(
    model: nn.Module, weight_decay: float, eps: float | None = None, family: Family = "adam"
) -> list[dict[str, Any]]:
    """Decayed and free parameters, each in the order of `model.named_parameters()`; at most two groups.

    Under muP there is a group for each `factor` of the learning rate too. Its decay makes up for the factor, so that
    their product is the same at every width, and eps (of Adam) shrinks as the gradients do.
    """
    table, mup = roles(model), mup_of(model)
    found: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        role = table[name]
        key = (role.kind in DECAYED_ROLES, 1.0 if mup is None else mup.rate(role, family))
        found.setdefault(key, []).append(parameter)
    ordered = sorted(found, reverse=True)
    if mup is None:
        return [{"params": found[key], "weight_decay": weight_decay if key[0] else 0.0} for key in ordered]
    return [_under_mup(mup, found[key], key, weight_decay, eps) for key in ordered]


def _under_mup(
    mup: MuP, parameters: list[nn.Parameter], key: tuple[bool, float], weight_decay: float, eps: float | None
) -> dict[str, Any]:
    decayed, factor = key
    group = {"params": parameters, "factor": factor, "weight_decay": weight_decay / factor if decayed else 0.0}
    return group if eps is None else {**group, "eps": eps / mup.ratio}
