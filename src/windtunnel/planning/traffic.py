"""What devices send each other in a training step, by axis of the mesh.

Bytes are what one device sends; rings: (n - 1)/n of the data for a gathering or a scattering, twice that for a sum. A
group whose devices lie in several islands goes over the network: through as many hosts' shares as it has members in an
island, since the ring passes each island once.
"""

from typing import NamedTuple

from windtunnel.planning.facts import Facts
from windtunnel.planning.hardware import Hardware
from windtunnel.planning.memory import Layout, own_parameters
from windtunnel.planning.mesh import Mesh
from windtunnel.planning.settings import Settings


class Transfer(NamedTuple):
    """One kind of collective. sent: bytes of a device in a step. seconds: of the step, were nothing else to be done.

    network: whether it leaves the island. hidden: whether products run meanwhile. per_host: bytes that a host sends to
    others in a step, None inside an island.
    """

    axis: str
    operation: str
    members: int
    sent: float
    seconds: float
    network: bool
    hidden: bool
    per_host: float | None
    what: str


def traffic(facts: Facts, layout: Layout, settings: Settings, hardware: Hardware, batch: int) -> tuple[Transfer, ...]:
    """All transfers of one step."""
    mesh = layout.mesh
    steps = batch / mesh.data / layout.microbatch  # microbatches of a device
    tokens = batch / mesh.data * facts.length / mesh.context  # of a device, in a step
    found = [
        *_sharded(facts, layout, settings, steps),
        _replicated(facts, mesh, settings),
        *_tensor(facts, layout, settings, tokens),
        *_context(facts, layout, settings, batch),
        *_expert(facts, layout, settings, tokens),
        *_pipeline(facts, layout, settings, tokens),
    ]
    return tuple(_timed(*each, mesh=mesh, hardware=hardware, settings=settings) for each in found if each[3] > 0)


_Found = tuple[str, str, int, float, bool, str]  # axis, operation, members, bytes, hidden, what


def _sharded(facts: Facts, layout: Layout, settings: Settings, steps: float) -> list[_Found]:
    """Parameters are gathered for each pass over the layers, gradients scattered once in each microbatch."""
    mesh = layout.mesh
    held = facts.held(mesh.tensor, mesh.expert, mesh.pipeline)
    found: list[_Found] = []
    for axis, members, size in (
        ("shard", mesh.holders, held.dense + held.tables),
        ("shard (experts)", mesh.shard * mesh.context, held.experts),
    ):
        ring = (members - 1) / members * size * steps
        found.append(
            (axis, "all-gather", members, 2 * ring * settings.element, True, "parameters, forward and backward")
        )
        found.append((axis, "reduce-scatter", members, ring * settings.gradient_bytes, True, "gradients"))
    return found


def _replicated(facts: Facts, mesh: Mesh, settings: Settings) -> _Found:
    """What a device keeps of the gradients, summed over the copies of the model once a step."""
    held = facts.held(mesh.tensor, mesh.expert, mesh.pipeline)
    own = own_parameters(held, mesh)
    sent = 2 * (mesh.replicate - 1) / mesh.replicate * own * settings.gradient_bytes
    return ("replicate", "all-reduce", mesh.replicate, sent, False, "gradients")


def _tensor(facts: Facts, layout: Layout, settings: Settings, tokens: float) -> list[_Found]:
    """The stream is summed after each branch, forward and backward, and again where the branch is recomputed."""
    mesh = layout.mesh
    passes = 2 + layout.recompute
    ring = 2 * (mesh.tensor - 1) / mesh.tensor * tokens * facts.spec.width * settings.element
    sent = facts.branches / mesh.pipeline * passes * ring
    return [("tensor", "all-reduce", mesh.tensor, sent, False, f"the stream, {facts.branches} branches")]


def _context(facts: Facts, layout: Layout, settings: Settings, batch: int) -> list[_Found]:
    """What mixers carry along a sequence (keys and values, a recurrent state) goes around, its gradient back."""
    mesh = layout.mesh
    state = facts.state_bytes(facts.length, mesh.tensor, settings.element) / mesh.pipeline
    sequences = batch / mesh.data
    ring = (mesh.context - 1) / mesh.context * state * sequences
    found: list[_Found] = [("context", "all-gather", mesh.context, 2 * ring, True, "keys, values and states")]
    return [*found, ("context", "reduce-scatter", mesh.context, ring, True, "their gradients")]


def _expert(facts: Facts, layout: Layout, settings: Settings, tokens: float) -> list[_Found]:
    """Each token's vector goes to its experts and their results come back, forward, backward and in recomputing."""
    mesh = layout.mesh
    choices = sum(experts.active for experts in facts.experts) / mesh.pipeline
    away = (mesh.expert - 1) / mesh.expert
    vector = facts.spec.width * settings.element / mesh.tensor
    sent = (2 + layout.recompute) * 2 * choices * tokens * vector * away
    return [("expert", "all-to-all", mesh.expert, sent, False, "tokens to their experts and back")]


def _pipeline(facts: Facts, layout: Layout, settings: Settings, tokens: float) -> list[_Found]:
    mesh = layout.mesh
    sent = 2 * tokens * facts.spec.width * settings.element / mesh.tensor if mesh.pipeline > 1 else 0.0
    return [("pipeline", "send", mesh.pipeline, sent, True, "the stream, forward and backward")]


def _timed(
    axis: str,
    operation: str,
    members: int,
    sent: float,
    hidden: bool,
    what: str,
    *,
    mesh: Mesh,
    hardware: Hardware,
    settings: Settings,
) -> Transfer:
    together = {"shard": ("shard", "expert", "context"), "shard (experts)": ("shard", "context")}.get(axis, (axis,))
    axes = [name for name in together if getattr(mesh, name) > 1] or together
    network = mesh.span(*axes) > hardware.island
    near = mesh.near(hardware.island, *axes)
    rate = min(hardware.link, near * hardware.network_of_device) if network else hardware.link
    per_host = sent / near * min(hardware.host, hardware.island) if network else None
    seconds = sent / (rate * settings.link_share)
    return Transfer(axis, operation, members, sent, seconds, network, hidden, per_host, what)
