"""Bytes of weights that decoding reads: what a step takes at the least, where moving them takes the time."""

from windtunnel.layer import Layer
from windtunnel.ledger.experts import experts_touched
from windtunnel.ledger.parameters import count
from windtunnel.root import ModelLayer


def weight_bytes(model: ModelLayer, rows: int = 1, element: int = 4) -> float:
    """Bytes of the weights that a step of `rows` sequences reads, each once.

    Of tables that are only looked up, the rows in question; of experts, those that are met under balanced routing.
    element: bytes of a weight.
    """
    parameters = count(model)
    tied = parameters.n_unemb == 0
    looked_up = 0 if tied else rows * model.spec.width
    idle = sum(_idle(module, rows) for module in model.modules() if isinstance(module, Layer))
    head = model.embedding.weight.numel() if tied else 0
    return element * (parameters.n_total - parameters.n_emb + head + looked_up - idle)


def step_bytes(model: ModelLayer, length: int) -> tuple[int, int]:
    """Bytes of one sequence's state after so many tokens, and all that the next token reads: it and the weights.

    Both at the width of the model's own weights.
    """
    element = model.embedding.weight.dtype.itemsize
    state = model.state_bytes(length, element)
    return state, state + round(weight_bytes(model, 1, element))


def _idle(module: Layer, rows: int) -> float:
    """Weights of a part that none of `rows` tokens meets."""
    alone, spec = module.idle_parameters(), getattr(module, "spec", None)
    experts, active = getattr(spec, "experts", None), getattr(spec, "active", None)
    if not alone or not isinstance(experts, int) or not isinstance(active, int):
        return alone
    return alone / (experts - active) * (experts - experts_touched(experts, active, rows))
