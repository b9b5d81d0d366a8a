"""What lies in one device's memory while training, by part."""

from typing import NamedTuple

from windtunnel.planning.basis import Basis
from windtunnel.planning.facts import Facts, Held
from windtunnel.planning.mesh import Mesh
from windtunnel.planning.settings import Settings

MASTER = 4  # bytes of a stored parameter: weights are float32 always
_ROWS = 256 << 20  # bytes of logits that the fused loss forms at a time on an accelerator


class Part(NamedTuple):
    """Bytes of one device, and how they come about."""

    name: str
    size: float
    basis: Basis
    note: str


class Layout(NamedTuple):
    """A mesh with what decides the activations: sequences of a device at a time, and the share that is recomputed."""

    mesh: Mesh
    microbatch: int
    recompute: float


def memory(facts: Facts, layout: Layout, settings: Settings) -> tuple[Part, ...]:
    """Bytes by part on the fullest device."""
    mesh = layout.mesh
    held = facts.held(mesh.tensor, mesh.expert, mesh.pipeline)
    own = own_parameters(held, mesh)
    divided = f"divided by tensor {mesh.tensor}, shard {mesh.shard}, context {mesh.context}"
    parts = [
        Part("parameters", own * MASTER, "counted", f"float32, {divided}"),
        Part("gradients", own * settings.gradient_bytes, "counted", f"{settings.gradient_bytes} bytes each, {divided}"),
        Part("optimiser state", _optimiser(held, own, settings), "counted", f"{settings.optimiser}, {divided}"),
        *_activations(facts, layout, settings),
        _logits(facts, layout, settings),
        _buffers(held, mesh, settings),
    ]
    return tuple(part for part in parts if part.size)


def total(parts: tuple[Part, ...]) -> float:
    """Their sum."""
    return sum(part.size for part in parts)


def own_parameters(held: Held, mesh: Mesh) -> float:
    """Parameters that stay on a device: what is no expert is divided among the expert axis's devices too."""
    return held.experts / (mesh.shard * mesh.context) + (held.dense + held.tables) / mesh.holders


def _optimiser(held: Held, own: float, settings: Settings) -> float:
    if settings.optimiser == "sgd":
        return 4 * own
    single = held.matrices * own / held.total if settings.optimiser == "muon" else 0.0
    return 8 * own - 4 * single


def _activations(facts: Facts, layout: Layout, settings: Settings) -> list[Part]:
    """Kept layers, in 1F1B order of as many microbatches as there are stages; and the one that is recomputed."""
    mesh, counted = layout.mesh, facts.activations
    tokens = layout.microbatch * facts.length / mesh.context / mesh.tensor
    layers = -(-len(counted.blocks) // mesh.pipeline)
    everything = sum(counted.blocks) / len(counted.blocks) * layers * mesh.pipeline * tokens
    if not layout.recompute:
        return [Part("activations", everything, "counted", _words(facts, "all that autograd keeps"))]
    inputs = counted.stream * layers * mesh.pipeline * tokens
    kept = (1 - layout.recompute) * everything + layout.recompute * inputs
    return [
        Part(
            "activations", kept, "counted", _words(facts, f"each layer's input, {1 - layout.recompute:.0%} of the rest")
        ),
        Part("recomputed layer", counted.largest * tokens, "counted", "one layer's activations, while it goes back"),
    ]


def _words(facts: Facts, what: str) -> str:
    replaced = facts.activations.replaced
    return f"{what}; {', '.join(replaced)} counted as dense parts of the same shape" if replaced else what


def _logits(facts: Facts, layout: Layout, settings: Settings) -> Part:
    """The fused loss forms rows of logits at a time, in the output's share of the vocabulary, and never all of them."""
    rows = layout.microbatch * facts.length / layout.mesh.context
    vocabulary = facts.spec.vocab / layout.mesh.tensor
    everything = rows * vocabulary * 4
    words = f"some rows at a time; all of them would be {everything / 2**30:.1f} GiB"
    return Part("logits", min(everything, max(float(_ROWS), 256 * vocabulary * 4)), "counted", words)


def _buffers(held: Held, mesh: Mesh, settings: Settings) -> Part:
    """Working copies: with `shard` two layers in use and on the way, one layer's gradients, and the tables."""
    if mesh.holders == 1:
        copy = held.total * settings.element if settings.element < MASTER else 0.0
        return Part("working copy", copy, "assumed", "all parameters of the device in the working precision")
    gathered = (2 * held.largest + held.tables) * settings.element
    gradients = held.largest * settings.gradient_bytes
    note = "two layers and the tables gathered, gradients of one layer"
    return Part("communication buffers", gathered + gradients, "assumed", note)
