"""Which meshes a task fits on, the fastest first; and what is said where none is found."""

from collections.abc import Iterator
from dataclasses import replace

from windtunnel.errors import InputError
from windtunnel.planning.memory import Layout
from windtunnel.planning.mesh import Mesh
from windtunnel.planning.step import Step, Task

_FARTHEST_TENSOR = 64
_MOST_DEVICES = 1 << 20
_GIB = 2**30


def best(task: Task, mesh: Mesh) -> Step:
    """The fastest way on a mesh that fits, or the smallest: what is recomputed, how many sequences at a time."""
    steps = [Step(task, layout) for layout in _layouts(task, mesh)]
    fitting = [step for step in steps if step.fits]
    if not fitting:
        return min(steps, key=lambda step: step.bytes)
    return min(fitting, key=lambda step: (step.modelled, -step.layout.microbatch))


def ranked(task: Task) -> list[Step]:
    """The best step of every mesh that the task fits on, the fastest first; of equal ones that with fewer axes."""
    steps = [best(task, mesh) for mesh in meshes(task)]
    fitting = [step for step in steps if step.fits]
    return sorted(fitting, key=lambda step: (step.modelled, step.layout.mesh.tensor, step.layout.mesh.words))


def meshes(task: Task) -> Iterator[Mesh]:
    """Meshes of all devices that divide model and batch. Pipelines are only tried where they are asked for."""
    facts = task.facts
    for tensor in _divisors(task.devices, min(_FARTHEST_TENSOR, task.hardware.island)):
        if not facts.divides(Mesh(tensor=tensor)):
            continue
        for expert in _divisors(task.devices // tensor, max((e.experts for e in facts.experts), default=1)):
            for context in _contexts(task, tensor * expert):
                rest = task.devices // (tensor * expert * context)
                for replicate in _divisors(rest, rest):
                    mesh = Mesh(
                        replicate=replicate, shard=rest // replicate, expert=expert, context=context, tensor=tensor
                    )
                    if task.batch % (mesh.data * (task.settings.microbatch or 1)) == 0 and facts.divides(mesh):
                        yield mesh


def _contexts(task: Task, inner: int) -> list[int]:
    """Sequences are divided only where there are more devices than sequences, or texts are long."""
    others = task.devices // inner
    scarce = task.batch % others != 0 or task.facts.length >= 1 << 15
    return _divisors(others, 64) if scarce else [1]


def _layouts(task: Task, mesh: Mesh) -> Iterator[Layout]:
    own = task.batch // mesh.data
    given = task.settings.microbatch
    shares = [0.0, 1.0] if task.settings.recompute is None else [task.settings.recompute]
    for microbatch in _divisors(own, own) if given is None else [given]:
        for share in shares:
            yield Layout(mesh, microbatch, share)


def _divisors(number: int, most: int) -> list[int]:
    return [size for size in range(1, min(number, most) + 1) if number % size == 0]


def refuse(task: Task, step: Step | None) -> InputError:
    """What is missing and the smallest change that would do. step: the mesh that was asked for, None if none was."""
    usable = f"of {task.usable / _GIB:.1f} GiB that can be used of a {task.hardware.name}'s"
    if step is None:
        tried = [best(task, mesh) for mesh in meshes(task)]
        if not tried:
            parts = "" if task.settings.microbatch is None else f" in microbatches of {task.settings.microbatch}"
            return InputError(
                f"devices: no mesh of {task.devices} divides the model and the batch of {task.batch}{parts}; "
                f"give --batch a multiple of {task.devices * (task.settings.microbatch or 1)}, or --mesh"
            )
        step = min(tried, key=lambda each: each.bytes)
    largest = max(step.memory, key=lambda part: part.size)
    words = (
        f"memory: mesh {step.layout.mesh.words} needs {step.bytes / _GIB:.1f} GiB on a device {usable} "
        f"{task.hardware.memory / _GIB:.1f}; the most is {largest.name}, {largest.size / _GIB:.1f}"
    )
    return InputError(f"{words}; {_remedy(task, step)}")


def _remedy(task: Task, step: Step) -> str:
    """The nearest plan that fits: recomputation, another mesh, more devices."""
    free = replace(task, settings=replace(task.settings, recompute=None, microbatch=None))
    again = best(free, step.layout.mesh)
    if again.fits:
        return f"--recompute {again.layout.recompute:g} with --microbatch {again.layout.microbatch} would do"
    other = ranked(free)
    if other:
        return f"--mesh {other[0].layout.mesh.words} would do"
    more = free
    while more.devices < _MOST_DEVICES:
        batch = max(more.batch, more.devices * 2)
        more = replace(more, devices=more.devices * 2, batch=batch)
        found = ranked(more)
        if found:
            return f"{more.devices} devices would do, as {found[0].layout.mesh.words}"
    return "no number of these devices would do"
