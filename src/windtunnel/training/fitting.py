"""Whether a run fits a team of processes; what does not is refused by name before work starts."""

import os

import torch

from windtunnel.distributed import experts, sequence
from windtunnel.distributed.team import Team
from windtunnel.distributed.tensor import cut
from windtunnel.errors import InputError
from windtunnel.execution import Execution, host_memory
from windtunnel.ledger.memory import Memory
from windtunnel.mlps.routers import RouterLayer
from windtunnel.root import Model
from windtunnel.training.optimisers import OPTIMISERS
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Text, Workload


def check_team(
    spec: Model, settings: TrainingSettings, execution: Execution, team: Team, workload: Workload | None = None
) -> None:
    """Raise an `InputError` for what several processes cannot do together, or cannot do right."""
    if team.size == 1:
        return
    if workload is not None and not isinstance(workload, Text):
        raise InputError("task: several processes train on text alone; train on a task with one")
    if execution.compile:
        raise InputError("compile: not with several processes yet; leave --compile out")
    if OPTIMISERS[settings.optimiser].matrices and team.mesh.replicate < team.size:
        raise InputError(
            f"optimiser {settings.optimiser!r} needs whole matrices, but {team.mesh} cuts them; take "
            f"--mesh replicate={team.size},shard=1, or another optimiser"
        )
    with torch.device("meta"):
        cut(spec, team.mesh.tensor)
    experts.check(spec, team.mesh.expert)
    sequence.check(spec, team.mesh.context, settings.context)
    _check_batches(settings, team)
    if _chooses_experts(spec) and settings.accumulation % team.readers:
        raise InputError(
            f"accumulation is {settings.accumulation}: experts balance their load within a micro-batch, so that "
            f"{team.readers} processes that read need whole ones; take --accumulation {team.readers} or a multiple"
        )


def check_memory(memory: Memory, team: Team, device: torch.device) -> None:
    """Raise an `InputError` where weights, gradients and the optimiser's state alone are more than a device has.

    Activations come on top; they are not counted here.
    """
    needed, there = memory.total / (team.mesh.holders * team.mesh.tensor), _memory_of(device)
    if there is None or needed <= there:
        return
    raise InputError(
        f"memory: weights, gradients and optimiser state take {needed / 2**30:.1f} GiB on each device ({team.mesh}), "
        f"and {device} has {there / 2**30:.1f} GiB for a process; take more devices to shard over, or a smaller model"
    )


def _memory_of(device: torch.device) -> float | None:
    """Bytes for one process: a GPU's, or its share of the host's; None where that is not known."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    host = host_memory() if device.type == "cpu" else None
    return None if host is None else host / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _check_batches(settings: TrainingSettings, team: Team) -> None:
    for size in dict.fromkeys(settings.batch_at(step) for step in range(settings.steps)):
        if size % team.readers:
            raise InputError(
                f"batch_size: steps of {size} sequences cannot be divided among the {team.readers} processes that "
                f"read ({team.mesh}); take a multiple of {team.readers}"
            )


def _chooses_experts(spec: Model) -> bool:
    with torch.device("meta"):
        return any(isinstance(module, RouterLayer) for module in spec.build().modules())
