"""Synthetic tasks, each a spec from which items are drawn; `parse_task` reads `mqar:pairs=8,length=128`."""

import dataclasses

from windtunnel.data.tasks.base import UNSCORED, Draws, Items, Task
from windtunnel.data.tasks.copying import Copying, Lookup
from windtunnel.data.tasks.induction import Induction
from windtunnel.data.tasks.mad import FuzzyRecall, Memorisation, NoisyRecall
from windtunnel.data.tasks.mqar import MQAR
from windtunnel.data.tasks.needles import Needles
from windtunnel.data.tasks.phonebook import Phonebook
from windtunnel.data.tasks.selective_copying import SelectiveCopying
from windtunnel.data.tasks.state_tracking import StateTracking
from windtunnel.data.tasks.stream import TaskStream, held_out
from windtunnel.errors import InputError
from windtunnel.spec import nearest
from windtunnel.values import parse_settings

__all__ = ["TASKS", "UNSCORED", "Draws", "Items", "Task", "TaskStream", "held_out", "parse_task"]

_KINDS: tuple[type[Task], ...] = (
    MQAR,
    Induction,
    SelectiveCopying,
    Copying,
    Lookup,
    Phonebook,
    Needles,
    NoisyRecall,
    FuzzyRecall,
    Memorisation,
    StateTracking,
)
TASKS: dict[str, type[Task]] = {kind.name: kind for kind in _KINDS}


def parse_task(text: str) -> Task:
    """A task as it is typed: a name, then settings off their defaults. Raises `InputError` with what is known."""
    name, _, tail = text.partition(":")
    if name not in TASKS:
        raise InputError(f"task: unknown task {name!r}{nearest(name, TASKS)}")
    kind = TASKS[name]
    settings = parse_settings(tail.split(",")) if tail else {}
    known = {field.name for field in dataclasses.fields(kind)}
    for setting in settings:
        if setting not in known:
            raise InputError(f"task {name} has no setting {setting!r}{nearest(setting, known)}")
    return kind(**settings)
