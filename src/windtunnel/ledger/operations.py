"""Floating-point operations and state, by mechanism. A multiply-accumulate is 2.

Three columns are never summed: `model` is what the algorithm needs (budgets use it), `hardware` what the kernels in use
execute, `elementwise` everything that is no matrix product. `dense` is `model` without the causal discount, the
convention of most papers and of operation counters.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from windtunnel.init import roles
from windtunnel.layer import Cost
from windtunnel.ledger.memory import Memory, crossover, curve, memory
from windtunnel.ledger.optimisers import optimiser_costs
from windtunnel.ledger.parameters import Parameters, count
from windtunnel.root import Model, ModelLayer

PROJECTION = 4.0  # operations per parameter and step


class Row(NamedTuple):
    """One mechanism in all layers: its parameters, and its operations per token, forward."""

    mechanism: str
    parameters: int
    model: float
    dense: float
    hardware: float
    elementwise: float


class Work(NamedTuple):
    """Operations per token of a whole model."""

    model: float
    dense: float
    hardware: float
    elementwise: float


@dataclass(frozen=True)
class Ledger:
    """Costs of one spec at sequences of `length` tokens.

    maps_kept: which attention kernel the training columns count, see `keeps_maps`. flops_per_token: what a budget of
    training FLOPs is divided by, 3 x forward. flops_by_kernel: the same under both kernels. optimiser: operations a
    step, by part. state_bytes: decoding state of one sequence by length; decode_flops: of the token at that position.
    parameter_crossover: the length from which the state is larger than the parameters, None if never.
    """

    length: int
    maps_kept: bool
    parameters: Parameters
    rows: tuple[Row, ...]
    forward: Work
    training: Work
    flops_by_kernel: dict[str, float]
    optimiser: dict[str, float]
    state_bytes: dict[int, int]
    decode_flops: dict[int, float]
    memory: Memory
    parameter_crossover: int | None

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token in the `model` column."""
        return self.training.model

    def optimiser_per_token(self, tokens_per_step: int) -> float:
        """The optimiser's operations shared among the tokens of a step."""
        return sum(self.optimiser.values()) / tokens_per_step

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; lengths become strings, as JSON's keys are."""
        return {
            **asdict(self),
            "parameters": self.parameters._asdict(),
            "rows": [row._asdict() for row in self.rows],
            "forward": self.forward._asdict(),
            "training": self.training._asdict(),
            "flops_per_token": self.flops_per_token,
            "state_bytes": {str(length): size for length, size in self.state_bytes.items()},
            "decode_flops": {str(position): flops for position, flops in self.decode_flops.items()},
            "memory": {**self.memory._asdict(), "total": self.memory.total},
        }


def keeps_maps(length: int, device: str = "cpu", dtype: str = "float32", compiled: bool = False) -> bool:
    """Whether training takes the kernels that keep attention maps, for those layers that have one at this length."""
    return device == "cpu" and dtype in ("float32", "float64") and not compiled and length > 1


def ledger(spec: Model, length: int, maps_kept: bool | None = None, optimiser: str = "adamw") -> Ledger:
    """The ledger of a spec. maps_kept: None takes what an eager float32 run on a CPU does at this length.

    optimiser: the one that trains it, as `train` names them.
    """
    kept = keeps_maps(length) if maps_kept is None else maps_kept
    with torch.device("meta"):
        model = spec.build()
    costs = model.costs(length)
    parameters = count(model)
    spent = optimiser_costs(model, optimiser)
    held = memory(parameters.n_total, state=spent.state_bytes)
    state = curve(model.state_bytes, length)
    return Ledger(
        length=length,
        maps_kept=kept,
        parameters=parameters,
        rows=_rows(model, [_route(cost, kept) for cost in costs]),
        forward=_forward(costs, kept),
        training=_training(costs, kept),
        flops_by_kernel={
            "maps kept": _training(costs, True).model,
            "maps recomputed": _training(costs, False).model,
        },
        optimiser={**spent.operations, "projection": _projection(model)},
        state_bytes=state,
        decode_flops={position: decode_flops(model, position) for position in state},
        memory=held,
        parameter_crossover=crossover(model.state_bytes, lambda _: held.parameters),
    )


def decode_flops(model: ModelLayer, position: int) -> float:
    """Forward FLOPs of the token at `position` (counted from 1), everything before it cached.

    Costs are means over a sequence, so the last token's is the difference of two totals.
    """
    before = 0.0 if position == 1 else (position - 1) * _mean(model, position - 1)
    return position * _mean(model, position) - before


def _mean(model: ModelLayer, length: int) -> float:
    return sum(cost.model for cost in model.costs(length))


def _route(cost: Cost, kept: bool) -> Cost:
    return cost.stored if kept and cost.stored is not None else cost


def _forward(costs: list[Cost], kept: bool) -> Work:
    chosen = [_route(cost, kept) for cost in costs]
    return Work(*(sum(getattr(cost, column) for cost in chosen) for column in Work._fields))


def _training(costs: list[Cost], kept: bool) -> Work:
    forward = _forward(costs, kept)
    again = sum(_route(cost, kept).recomputed for cost in costs)
    extra = 3 * sum(_route(cost, kept).training for cost in costs)
    return Work(
        3 * forward.model + extra,
        3 * forward.dense + extra,
        3 * forward.hardware + again + extra,
        3 * forward.elementwise,
    )


def _rows(model: ModelLayer, costs: list[Cost]) -> tuple[Row, ...]:
    parameters = _parameters_by_mechanism(model)
    names = dict.fromkeys([*(cost.mechanism for cost in costs), *parameters])
    rows = []
    for name in names:
        of_this = [cost for cost in costs if cost.mechanism == name]
        sums = [sum(getattr(cost, column) for cost in of_this) for column in Work._fields]
        rows.append(Row(name, parameters.get(name, 0), *sums))
    return tuple(row for row in rows if any(row[1:]))


def _parameters_by_mechanism(model: ModelLayer) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, role in roles(model).items():
        mechanism = role.mechanism or "other"
        found[mechanism] = found.get(mechanism, 0) + model.get_parameter(name).numel()
    return found


def _projection(model: ModelLayer) -> float:
    if not model.normalized:
        return 0.0
    free = ("gain", "bias", "decay", "inner", "filter")
    on_sphere = {name for name, role in roles(model).items() if role.kind not in free}
    return PROJECTION * sum(weight.numel() for name, weight in model.named_parameters() if name in on_sphere)
