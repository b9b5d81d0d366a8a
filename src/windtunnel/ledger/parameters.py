"""Seven counts of parameters, because a bare N means nothing: fitted exponents differ two-fold between conventions."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from windtunnel.init import roles
from windtunnel.layer import Layer
from windtunnel.root import Model

_MATRICES = ("reads", "writes", "inner", "unembedding")


class Parameters(NamedTuple):
    """n_total: all. n_emb: input tables (tokens, additive positions). n_unemb: the output table, 0 where it is tied.

    n_body: n_total - n_emb - n_unemb. n_matmul: weights multiplied for each token, the output table included, tied or
    not. n_active: n_matmul with only the experts that a token is routed to; n_body_active: n_body with only those.
    """

    n_total: int
    n_emb: int
    n_unemb: int
    n_body: int
    n_matmul: int
    n_active: int
    n_body_active: int


def count(model: nn.Module) -> Parameters:
    """The seven counts of a built model; its device does not matter."""
    kinds = {name: role.kind for name, role in roles(model).items()}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(sizes.values())
    tables = sum(size for name, size in sizes.items() if kinds[name] == "embedding")
    head = sum(size for name, size in sizes.items() if kinds[name] == "unembedding")
    matrices = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if kinds[name] in _MATRICES and parameter.dim() > 1
    )
    if not head:
        matrices += _tied_table(model)
    idle = sum(module.idle_parameters() for module in model.modules() if isinstance(module, Layer))
    body = total - tables - head
    return Parameters(total, tables, head, body, matrices, matrices - idle, body - idle)


@lru_cache(maxsize=4096)
def n_body(spec: Model) -> int:
    """Parameters without the input and output tables."""
    with torch.device("meta"):
        return count(spec.build()).n_body


@lru_cache(maxsize=4096)
def n_body_active(spec: Model) -> int:
    """Those of them that a token meets: what a comparison holds equal. All of them in a model without experts."""
    with torch.device("meta"):
        return count(spec.build()).n_body_active


@lru_cache(maxsize=4096)
def n_active(spec: Model) -> int:
    """Weights multiplied for each token, the output table included: the N of a scaling law."""
    with torch.device("meta"):
        return count(spec.build()).n_active


def _tied_table(model: nn.Module) -> int:
    table = getattr(model.get_submodule("embedding"), "weight", None)
    return table.numel() if isinstance(table, nn.Parameter) else 0
