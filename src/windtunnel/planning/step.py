"""How long a training step takes: products at an assumed share of the peak, and the transfers that they wait for."""

from dataclasses import dataclass
from functools import cached_property

from windtunnel.errors import InputError
from windtunnel.planning.facts import Facts
from windtunnel.planning.hardware import Hardware
from windtunnel.planning.memory import Layout, Part, memory, total
from windtunnel.planning.mesh import Mesh
from windtunnel.planning.settings import Settings
from windtunnel.planning.traffic import Transfer, traffic
from windtunnel.planning.utilisation import utilisation


@dataclass(frozen=True)
class Task:
    """What is trained, on what: everything but the layout. batch: sequences of a step, over all devices."""

    facts: Facts
    hardware: Hardware
    settings: Settings
    devices: int
    batch: int

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.facts.length

    @property
    def usable(self) -> float:
        """Bytes of a device that a plan may fill."""
        return self.hardware.memory * self.settings.memory_share

    @property
    def peak(self) -> float:
        """FLOP/s of one device at the plan's precision."""
        return self.hardware.peak(self.settings.dtype or "float32")

    def check(self, mesh: Mesh) -> None:
        """Refuse a mesh that divides neither the model nor the batch."""
        self.facts.check(mesh)
        if self.batch % mesh.data:
            raise InputError(
                f"batch: {self.batch} sequences do not divide among replicate {mesh.replicate} x shard {mesh.shard} x "
                f"expert {mesh.expert} = {mesh.data} places"
            )
        own, given = self.batch // mesh.data, self.settings.microbatch
        if given is not None and own % given:
            raise InputError(f"microbatch: {given} does not divide the {own} sequences of a device")


@dataclass(frozen=True)
class Step:
    """One layout's memory, transfers and times. Seconds of one step: products, bubble, waits, update."""

    task: Task
    layout: Layout

    @cached_property
    def memory(self) -> tuple[Part, ...]:
        """Bytes of the fullest device, by part."""
        return memory(self.task.facts, self.layout, self.task.settings)

    @cached_property
    def bytes(self) -> float:
        """All parts."""
        return total(self.memory)

    @property
    def fits(self) -> bool:
        """Whether it fits into the part of the memory that can be used."""
        return self.bytes <= self.task.usable

    @cached_property
    def traffic(self) -> tuple[Transfer, ...]:
        """What devices send each other."""
        task = self.task
        return traffic(task.facts, self.layout, task.settings, task.hardware, task.batch)

    @property
    def products(self) -> float:
        """Seconds of matrix products, what is recomputed with them."""
        task = self.task
        ledger = task.facts.ledger
        flops = ledger.training.hardware + self.layout.recompute * ledger.forward.hardware
        return flops * task.step_tokens / (task.devices * task.peak * task.settings.utilisation)

    @property
    def bubble(self) -> float:
        """Seconds that a pipeline's stages wait for the first and the last microbatch (1F1B)."""
        microbatches = self.task.batch / self.layout.mesh.data / self.layout.microbatch
        return self.products * (self.layout.mesh.pipeline - 1) / microbatches

    @property
    def waits(self) -> float:
        """Seconds of transfers that nothing hides."""
        hidden = sum(each.seconds for each in self.traffic if each.hidden)
        return sum(each.seconds for each in self.traffic if not each.hidden) + max(0.0, hidden - self.products)

    @property
    def update(self) -> float:
        """Seconds of the optimiser: its state and the parameters are read and written once, gradients read."""
        sizes = {part.name: part.size for part in self.memory}
        moved = 2 * sizes["parameters"] + 2 * sizes["optimiser state"] + sizes["gradients"]
        return moved / (self.task.hardware.bandwidth * self.task.settings.link_share)

    @property
    def modelled(self) -> float:
        """Seconds of a step."""
        return self.products + self.bubble + self.waits + self.update

    @property
    def seconds(self) -> float:
        """Seconds of a step: as observed, where a throughput was given."""
        observed = self.task.settings.throughput
        return self.modelled if observed is None else self.task.step_tokens / observed

    @property
    def tokens_per_second(self) -> float:
        """Of all devices."""
        return self.task.step_tokens / self.seconds

    @property
    def mfu(self) -> float:
        """By PaLM's convention: every pair of tokens counts."""
        return self._used(self.task.facts.ledger.training.dense)

    @property
    def mfu_attended(self) -> float:
        """Counting only pairs that are attended to."""
        return self._used(self.task.facts.ledger.training.model)

    @property
    def hfu(self) -> float:
        """By PaLM's convention, with what is recomputed; all scores are, as soon as anything is."""
        return self._used(self.task.facts.ledger.training.dense + recomputed(self.task.facts, self.layout.recompute))

    def _used(self, flops: float) -> float:
        return utilisation(flops, self.tokens_per_second, self.task.devices, self.task.peak)


def recomputed(facts: Facts, share: float) -> float:
    """FLOPs a token that run twice: a share of the forward pass, and all scores and weighted values (PaLM App. B)."""
    if not share:
        return 0.0
    core = sum(row.dense for row in facts.ledger.rows if row.mechanism.endswith("core"))
    return share * (facts.ledger.forward.dense - core) + core
