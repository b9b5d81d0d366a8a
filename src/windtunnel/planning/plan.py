"""A plan: what a model costs to train and to serve on hardware that one may not have."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from windtunnel.planning.basis import MEANINGS, Input
from windtunnel.planning.facts import Facts
from windtunnel.planning.hardware import Hardware
from windtunnel.planning.mesh import parse_mesh
from windtunnel.planning.search import best, ranked, refuse
from windtunnel.planning.serving import Serving, serving
from windtunnel.planning.settings import DTYPES, STEP_TOKENS, TOKENS_PER_PARAMETER, Settings
from windtunnel.planning.step import Step, Task, recomputed
from windtunnel.root import Model

_FEW = 64  # devices: fewer of them are planned with smaller batches


@dataclass(frozen=True)
class Plan:
    """The chosen step, others that fit from the fastest on, the serving plan, and what all of it rests on."""

    task: Task
    step: Step
    others: tuple[Step, ...]
    serving: Serving
    tokens: int
    inputs: tuple[Input, ...]

    @property
    def seconds(self) -> float:
        """Of training on all tokens."""
        return self.tokens / self.step.tokens_per_second

    @property
    def device_hours(self) -> float:
        """Of training on all tokens."""
        return self.seconds * self.task.devices / 3600

    @property
    def cost(self) -> float | None:
        """In the unit of the price; None without one."""
        price = self.task.settings.price
        return None if price is None else price * self.device_hours

    @property
    def flops_per_token(self) -> dict[str, float]:
        """Of training: PaLM's convention, with what is recomputed, and counting only attended pairs."""
        training = self.task.facts.ledger.training
        again = recomputed(self.task.facts, self.step.layout.recompute)
        return {"dense": training.dense, "dense, recomputed": training.dense + again, "attended": training.model}

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; every group says where its figures come from."""
        ledger = self.task.facts.ledger
        return {
            "inputs": [each._asdict() for each in self.inputs],
            "meanings": dict(MEANINGS),
            "hardware": self.task.hardware.to_json(),
            "devices": self.task.devices,
            "batch": self.task.batch,
            "length": self.task.facts.length,
            "parameters": {**ledger.parameters._asdict(), "basis": "counted"},
            "flops_per_token": {**self.flops_per_token, "basis": "counted"},
            "mechanisms": [row._asdict() for row in ledger.rows],
            "plan": step_json(self.step),
            "training": {
                "tokens": self.tokens,
                "seconds": self.seconds,
                "device_hours": self.device_hours,
                "cost": self.cost,
                "basis": step_basis(self.step),
            },
            "others": [step_json(step) for step in self.others],
            "serving": {**self.serving.to_json(), "basis": "modelled"},
        }


def step_basis(step: Step) -> str:
    """Where a step's time comes from."""
    return "given" if step.task.settings.throughput is not None else "modelled"


def step_json(step: Step) -> dict[str, Any]:
    """One layout as JSON values."""
    return {
        "mesh": step.layout.mesh.axes(),
        "microbatch": step.layout.microbatch,
        "recompute": step.layout.recompute,
        "memory": [part._asdict() for part in step.memory],
        "memory_bytes": step.bytes,
        "usable_bytes": step.task.usable,
        "fits": step.fits,
        "traffic": [{**each._asdict(), "basis": "modelled"} for each in step.traffic],
        "step": {
            "seconds": step.seconds,
            "modelled_seconds": step.modelled,
            "products": step.products,
            "bubble": step.bubble,
            "waits": step.waits,
            "update": step.update,
            "tokens_per_second": step.tokens_per_second,
            "mfu": step.mfu,
            "mfu_attended": step.mfu_attended,
            "hfu": step.hfu,
            "basis": step_basis(step),
        },
    }


def plan(
    spec: Model, length: int, hardware: Hardware, devices: int, settings: Settings, mesh: str | None = None
) -> Plan:
    """Lay a model out on devices: on the mesh that was given, or on the fastest that fits.

    Raises `InputError` where the mesh divides neither devices nor model, and where the memory is too small, with the
    smallest change that would do.
    """
    settings = settings.for_precision(settings.dtype or next(iter(hardware.peaks)))
    hardware.peak(settings.dtype or "")
    facts = Facts(spec, length, DTYPES.get(settings.dtype or "", torch.float32))
    batch = settings.batch or _batch(length, devices)
    task = Task(facts, hardware, settings, devices, batch)
    others = tuple(ranked(replace(task, settings=replace(settings, throughput=None))))
    if mesh is None:
        if not others:
            raise refuse(task, None)
        step = Step(task, others[0].layout)
    else:
        chosen = parse_mesh(mesh, devices)
        task.check(chosen)
        step = best(task, chosen)
        if not step.fits:
            raise refuse(task, step)
    tokens = settings.tokens or TOKENS_PER_PARAMETER * facts.ledger.parameters.n_active
    served = serving(facts, hardware, settings)
    return Plan(task, step, others, served, tokens, _inputs(task, step, tokens, mesh))


def _batch(length: int, devices: int) -> int:
    """Sequences of about 4M tokens, an eighth of that on few devices; a multiple of the devices if that is more."""
    wanted = max(1, (STEP_TOKENS if devices >= _FEW else STEP_TOKENS // 8) // length)
    power = 1 << (wanted.bit_length() - 1)
    return power if devices <= power else devices


def _inputs(task: Task, step: Step, tokens: int, mesh: str | None) -> tuple[Input, ...]:
    settings, hardware = task.settings, task.hardware
    said = settings.given

    def chosen(name: str, value: str, otherwise: str) -> Input:
        words = name.replace("_", " ")
        if name in said:
            return Input(words, value, "given", f"--{name.replace('_', '-')}")
        return Input(words, value, "assumed", otherwise)

    dtype = settings.dtype or "float32"
    rows = [
        ("peaks", f"peak in {dtype}", f"{hardware.peak(dtype) / 1e12:.4g} TFLOP/s"),
        ("memory", "memory of a device", f"{hardware.memory / 2**30:.4g} GiB"),
        ("bandwidth", "bandwidth of the memory", f"{hardware.bandwidth / 1e9:.4g} GB/s"),
        ("link", f"fast links, {hardware.island} devices", f"{hardware.link / 1e9:.4g} GB/s a device"),
        ("network", f"network, hosts of {hardware.host}", f"{hardware.network / 1e9:.4g} GB/s a host"),
    ]
    table = [Input(words, value, *hardware.basis(name)) for name, words, value in rows]
    micro = f"{step.layout.microbatch} of {task.batch // step.layout.mesh.data} sequences at a time"
    return (
        *table,
        chosen(
            "batch",
            f"{task.batch:,} sequences = {task.step_tokens:,} tokens",
            "about 4M tokens a step, 0.5M on fewer than 64 devices",
        ),
        chosen("tokens", f"{tokens:,}", f"{TOKENS_PER_PARAMETER} a parameter that a token meets"),
        chosen("optimiser", settings.optimiser, "the default"),
        chosen("dtype", f"{dtype}; weights and moments float32", "the first that the hardware has"),
        chosen("gradients", f"{settings.gradient_bytes} bytes each", "as wide as the working precision"),
        chosen("mesh", step.layout.mesh.words, "the fastest that fits, by this model"),
        chosen("recompute", f"{step.layout.recompute:g} of the forward pass", "the fastest of 0 and 1 that fits"),
        chosen("microbatch", micro, "the fastest that fits"),
        chosen("utilisation", f"{settings.utilisation:g} of the peak while products run", "PaLM's HFU was 0.578"),
        chosen("link_share", f"{settings.link_share:g} of published bandwidths", "a guess"),
        chosen("memory_share", f"{settings.memory_share:g} of the memory", "the rest is the runtime's"),
        Input("overlap", "gathering and scattering run beside products, all else waits", "assumed", "PaLM, section 4"),
        Input("sequence parallelism", "activations are divided by tensor and context", "assumed", "as PaLM's are"),
        *([chosen("throughput", f"{settings.throughput:,.0f} tokens/s", "")] if settings.throughput else []),
        *([chosen("price", f"{settings.price:g} a device-hour", "")] if settings.price else []),
    )
