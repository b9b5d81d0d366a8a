"""What a model costs: parameters, floating-point operations and bytes, asked of the model itself on the meta device."""

from windtunnel.ledger.experts import expert_bytes_read, experts_touched
from windtunnel.ledger.memory import Memory, crossover, memory
from windtunnel.ledger.operations import Ledger, Row, Work, decode_flops, keeps_maps, ledger
from windtunnel.ledger.optimisers import OptimiserCosts, optimiser_costs
from windtunnel.ledger.parameters import Parameters, count, n_active, n_body, n_body_active
from windtunnel.ledger.reading import step_bytes, weight_bytes

__all__ = [
    "Ledger",
    "Memory",
    "OptimiserCosts",
    "Parameters",
    "Row",
    "Work",
    "count",
    "crossover",
    "decode_flops",
    "expert_bytes_read",
    "experts_touched",
    "keeps_maps",
    "ledger",
    "memory",
    "n_active",
    "n_body",
    "n_body_active",
    "optimiser_costs",
    "step_bytes",
    "weight_bytes",
]
