"""What serving costs: weights and states in memory, the least time of a token, tokens a second by batch.

A step of decoding reads the weights and the states once. Times are bounds: bandwidths as published, products at the
assumed share of the peak, no latency of the links.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from windtunnel.errors import InputError
from windtunnel.ledger import decode_flops, experts_touched
from windtunnel.planning.facts import Facts
from windtunnel.planning.hardware import Hardware
from windtunnel.planning.mesh import Mesh, parse_mesh
from windtunnel.planning.settings import Settings

_GIB = 2**30
_MOST = 1 << 16  # sequences: beyond them a plan says nothing new
_POWERS = 8


class Batch(NamedTuple):
    """So many sequences at a time through the model. bound: what takes the time, memory or products.

    expert_tokens: tokens that an expert is given, on average. in_flight: sequences on all stages of the pipeline.
    """

    sequences: int
    in_flight: int
    seconds: float
    tokens_per_second: float
    bound: str
    expert_tokens: float | None


@dataclass(frozen=True)
class Serving:
    """One copy of the model on a mesh of `tensor` x `pipeline`, at texts of `length` tokens.

    weights: bytes of the fullest device. state: bytes of one sequence on it. sequence: of one, over all devices.
    first: seconds of reading a prompt of `length`, at the least.
    """

    mesh: Mesh
    length: int
    weights: float
    state: float
    sequence: float
    most: int
    first: float
    batches: tuple[Batch, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "mesh": self.mesh.axes(),
            "devices": self.mesh.devices,
            "length": self.length,
            "weight_bytes": self.weights,
            "state_bytes": self.state,
            "sequence_bytes": self.sequence,
            "most_sequences": self.most,
            "first_token_seconds": self.first,
            "batches": [batch._asdict() for batch in self.batches],
        }


def serving(facts: Facts, hardware: Hardware, settings: Settings) -> Serving:
    """The plan, on the mesh that was given or the fewest devices that hold the weights and one sequence."""
    length = settings.serve_length or facts.length
    if settings.serve_mesh is not None:
        mesh = _given(facts, settings.serve_mesh)
        weights, state = _held(facts, mesh, settings, length)
        if weights + state > hardware.memory * settings.memory_share:
            raise InputError(_full(hardware, settings, mesh, weights, state))
    else:
        mesh = _smallest(facts, hardware, settings, length)
        weights, state = _held(facts, mesh, settings, length)
    room = hardware.memory * settings.memory_share - weights
    most = int(min(room // state, _MOST)) if state else _MOST
    fullest = max(1, most // mesh.pipeline)
    sizes = [4**power for power in range(_POWERS) if 4**power < fullest] + [fullest]
    batches = [_decode(facts, hardware, settings, mesh, length, size) for size in sizes]
    flops = facts.ledger.forward.hardware * length
    first = flops / (mesh.tensor * hardware.peak(settings.dtype or "float32") * settings.utilisation)
    sequence = facts.model.state_bytes(length, settings.element)
    return Serving(mesh, length, weights, state, sequence, most, first, tuple(batches))


def _given(facts: Facts, text: str) -> Mesh:
    """Serving knows two axes: each matrix divided, and the layers, in stages of which the last may have fewer."""
    mesh = parse_mesh(text)
    if mesh.devices != mesh.tensor * mesh.pipeline:
        raise InputError(f"serve-mesh: {mesh.words}: serving divides by tensor and pipeline alone")
    if mesh.pipeline > len(facts.blocks):
        raise InputError(f"serve-mesh: pipeline {mesh.pipeline} is more than the {len(facts.blocks)} layers")
    facts.check(Mesh(tensor=mesh.tensor))
    return mesh


def _smallest(facts: Facts, hardware: Hardware, settings: Settings, length: int) -> Mesh:
    """The fewest devices that hold the weights and one sequence: the widest tensor group of an island, then stages."""
    usable = hardware.memory * settings.memory_share
    widths = [size for size in (1, 2, 4, 8, 16) if size <= hardware.island and facts.divides(Mesh(tensor=size))]
    for pipeline in range(1, len(facts.blocks) + 1):
        for tensor in widths if pipeline == 1 else widths[-1:]:
            mesh = Mesh(tensor=tensor, pipeline=pipeline)
            if sum(_held(facts, mesh, settings, length)) <= usable:
                return mesh
    last = Mesh(tensor=widths[-1], pipeline=len(facts.blocks))
    raise InputError(_full(hardware, settings, last, *_held(facts, last, settings, length)))


def _full(hardware: Hardware, settings: Settings, mesh: Mesh, weights: float, state: float) -> str:
    return (
        f"serve-mesh: {mesh.words} holds {weights / _GIB:.1f} GiB of weights and {state / _GIB:.2f} GiB of state a "
        f"sequence on a device, of {hardware.memory * settings.memory_share / _GIB:.1f} GiB that can be used"
    )


def _held(facts: Facts, mesh: Mesh, settings: Settings, length: int) -> tuple[float, float]:
    """Bytes of weights and of one sequence's state on the fullest device."""
    weights = facts.held(mesh.tensor, 1, mesh.pipeline).total * settings.element
    layers = len(facts.blocks)
    share = -(-layers // mesh.pipeline) / layers
    return weights, facts.state_bytes(length, mesh.tensor, settings.element) * share


def _decode(facts: Facts, hardware: Hardware, settings: Settings, mesh: Mesh, length: int, size: int) -> Batch:
    """One step of `size` sequences through all stages; as many batches as there are stages are on their way at once."""
    own = facts.held(mesh.tensor, 1, 1)
    read = (own.dense + own.tables + own.experts * _met(facts, size)) * settings.element
    states = facts.state_bytes(length, mesh.tensor, settings.element) * size
    memory = (read + states) / hardware.bandwidth
    peak = hardware.peak(settings.dtype or "float32") * settings.utilisation
    products = decode_flops(facts.model, length) * size / (mesh.tensor * peak)
    ring = 2 * (mesh.tensor - 1) / mesh.tensor * size * facts.spec.width * settings.element
    sums = facts.branches * ring / (hardware.link * settings.link_share)
    seconds = max(memory, products) + sums
    in_flight = size * mesh.pipeline
    bound = "memory" if memory >= products else "products"
    return Batch(size, in_flight, seconds, in_flight / seconds, bound, _expert_tokens(facts, size))


def _met(facts: Facts, size: int) -> float:
    """The share of all experts' weights that a batch reads: those that at least one of its tokens meets."""
    if not facts.experts:
        return 0.0
    met = sum(experts_touched(layer.experts, layer.active, size) for layer in facts.experts)
    return met / sum(layer.experts for layer in facts.experts)


def _expert_tokens(facts: Facts, size: int) -> float | None:
    if not facts.experts:
        return None
    first = facts.experts[0]
    return size * first.active / first.experts
