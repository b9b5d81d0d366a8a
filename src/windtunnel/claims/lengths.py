"""Evidence in results of `windtunnel bench length`: the same targets with more text before them, as it is and rescaled.

Every figure is a difference of nats between two readings, seed by seed.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from windtunnel.claims.claim import Evidence
from windtunnel.claims.filed import Filed
from windtunnel.claims.studies import Reader
from windtunnel.report.figures import counted, signed
from windtunnel.statistics import paired_interval

AS_IT_IS = "as it is"


class Reading(NamedTuple):
    """An arm that is read by a method, with `multiple` times its trained length in sight."""

    arm: str
    method: str
    multiple: float


def past_length(label: str, multiple: float) -> Reader:
    """What a multiple of the trained length costs over that length, for each length that the arm was trained at."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if filed.benchmark != "length":
            return
        for arm in filed.content["length"]["tasks"][0]["arms"]:
            if arm["label"].split()[0] == label:
                far, near = (Reading(arm["label"], AS_IT_IS, times) for times in (multiple, 1.0))
                yield from _difference(filed, "length", far, near, f"trained at {arm['base']} tokens")

    return read


def rescaled(method: str, multiple: float, over: float = 1.0) -> Reader:
    """What frequencies changed at reading time cost, without training: at one multiple over another."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if filed.benchmark == "length":
            arm = _original(filed)
            far, near = Reading(arm, method, multiple), Reading(arm, method, over)
            yield from _difference(filed, "scaling", far, near, f"{arm}, read by {method}, no training")

    return read


def trained_further(method: str, multiple: float) -> Reader:
    """A multiple of the first length after some training by a method, over the first length before it."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if filed.benchmark == "length":
            far, near = Reading(_tuned(method), AS_IT_IS, multiple), Reading(_original(filed), AS_IT_IS, 1.0)
            yield from _difference(filed, "scaling", far, near, f"{_training(filed)} by {method}")

    return read


def against(method: str, other: str, multiple: float) -> Reader:
    """One method after training over another after as much, at a multiple of the first length."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if filed.benchmark == "length":
            ours, theirs = (Reading(_tuned(one), AS_IT_IS, multiple) for one in (method, other))
            yield from _difference(filed, "scaling", ours, theirs, f"{_training(filed)} by each")

    return read


def _original(filed: Filed) -> str:
    """The arm that was extended, before it was."""
    return str(filed.content["scaling"]["runs"][0]["label"])


def _tuned(method: str) -> str:
    return f"{method}, trained further"


def _training(filed: Filed) -> str:
    settings = filed.content["settings"]
    more = f"{counted(settings['tuned'])} more bytes at {settings['factor']:g} times the length"
    return f"{_original(filed)}, {more}"


def _difference(filed: Filed, question: str, one: Reading, other: Reading, where: str) -> Iterator[Evidence]:
    """Nats of one reading over another's, paired by seeds; nothing where either was not read."""
    ours, theirs = (_nats(filed.content[question], reading) for reading in (one, other))
    if not ours or len(ours) != len(theirs):
        return
    found = paired_interval(ours, theirs)
    settings = filed.content["settings"]
    low, high = (end if math.isfinite(end) else None for end in found.ends)
    yield Evidence(
        value=found.value,
        low=found.ends[0],
        high=found.ends[1],
        shown=f"{signed(found.value)} [{signed(low)}, {signed(high)}] nats",
        setting=f"{settings['layers']} x {settings['width']}, {counted(settings['tokens'])} bytes, {where}, "
        f"{len(ours)} seed{'s' if len(ours) > 1 else ''}",
        doubts=() if len(ours) > 1 else ("one seed",),
    )


def _nats(document: Mapping[str, Any], reading: Reading) -> list[float]:
    """Of the last targets, one number a run of the arm."""
    (task,) = document["tasks"]
    return [
        float(point["last"]["value"])
        for run, figures in zip(document["runs"], task["runs"], strict=True)
        if run["label"] == reading.arm
        for method in figures["methods"]
        if method["method"] == reading.method
        for point in method["points"]
        if point["multiple"] == reading.multiple
    ]
