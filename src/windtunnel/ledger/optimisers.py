"""What an optimiser costs a step: operations, and the bytes that it keeps."""

from typing import NamedTuple

from torch import nn

from windtunnel.errors import InputError
from windtunnel.init import roles
from windtunnel.spec import nearest

ADAMW = 14.0  # operations per parameter and step
_FLOAT, _NEWTON_SCHULZ = 4, 5
_MATRICES = frozenset({"reads", "writes", "inner"})  # those of these kinds with two dimensions are Muon's


class OptimiserCosts(NamedTuple):
    """Operations a step by part, and bytes of state between steps; step counters are left out."""

    operations: dict[str, float]
    state_bytes: int


class _Elementwise(NamedTuple):
    """Operations per parameter and step, and float32 numbers kept of each."""

    title: str
    operations: float
    kept: int


# Adafactor: square and floor 2, mean 3, root and quotient 2, two RMS 4, scale 1, momentum 3, decay and step 2.
_ELEMENTWISE = {
    "adamw": _Elementwise("AdamW", ADAMW, 2),
    "adam": _Elementwise("Adam", ADAMW, 2),
    "sgd": _Elementwise("SGD with momentum", 6.0, 1),
    "adafactor": _Elementwise("Adafactor", 17.0, 2),
}


def optimiser_costs(model: nn.Module, name: str) -> OptimiserCosts:
    """The costs of an optimiser of `train`; an `InputError` names those that are known."""
    known = [*_ELEMENTWISE, "muon"]
    if name not in known:
        raise InputError(f"optimiser: no costs are known of {name!r}{nearest(name, known)}")
    if name == "muon":
        return _muon(model)
    each = _ELEMENTWISE[name]
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return OptimiserCosts({each.title: each.operations * numbers}, _FLOAT * each.kept * numbers)


def _muon(model: nn.Module) -> OptimiserCosts:
    """Momentum and five Newton-Schulz steps of 4 m n² + 2 n³ for matrices of m x n, n <= m; AdamW for the rest."""
    table = roles(model)
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if table[name].kind in _MATRICES and parameter.ndim == 2
    ]
    ours = sum(parameter.numel() for parameter in matrices)
    others = sum(parameter.numel() for parameter in model.parameters()) - ours
    products = 0.0
    for parameter in matrices:
        n, m = sorted(parameter.shape)
        products += _NEWTON_SCHULZ * (4 * m * n**2 + 2 * n**3)
    adamw = _ELEMENTWISE["adamw"]
    operations = {"Muon": products + 6.0 * ours, adamw.title: adamw.operations * others}
    return OptimiserCosts(operations, _FLOAT * (ours + adamw.kept * others))
