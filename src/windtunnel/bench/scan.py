"""The linear recurrence, forward and backward, against the memory bandwidth measured beside it.

A scan does two operations for each number that it moves, so the bound is the bytes: forward reads decays and inputs and
writes states, backward reads the gradient, decays and states and writes two gradients; 8 numbers an element. Bandwidth
is that of an addition of two long vectors into a third, in the same round.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from windtunnel.bench.spread import Ratio
from windtunnel.bench.turns import Say, compared, take_turns
from windtunnel.kernels import linear_scan, tune_allocator
from windtunnel.kernels.scan_native import SETTING, library
from windtunnel.report.tables import Table


def run(
    rounds: int, threads: int, say: Say, batch: int = 8, width: int = 512, lengths: tuple[int, ...] = (512, 2048, 8192)
) -> dict[str, Any]:
    """Time over the time of the bytes, for each length and path; the compiled operator where there is a compiler."""
    tune_allocator()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = {str(length): _at((batch, length, width), rounds, say) for length in lengths}
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": "scan",
        "versions": {"torch": torch.__version__},
        "settings": {"batch": batch, "width": width, "threads": threads, "rounds": rounds},
        "lengths": results,
    }


def _at(shape: tuple[int, int, int], rounds: int, say: Say) -> list[dict[str, Any]]:
    say(f"{shape[0]} sequences of {shape[1]}, {shape[2]} channels")
    paths = {"torch": "0", **({"compiled": "1"} if library() is not None else {})}
    contestants: dict[str, Callable[[], object]] = {"bytes": _moving(math.prod(shape))}
    contestants |= {name: _scanning(shape, setting) for name, setting in paths.items()}
    return compared(take_turns(contestants, rounds), "bytes")


def _moving(count: int) -> Callable[[], object]:
    """Moves as many bytes as the scan of `count` elements should: x + y into z, 2 and 2/3 times."""
    x, y, z = (torch.rand(count) for _ in range(3))
    part = 2 * count // 3

    def move() -> None:
        torch.add(x, y, out=z)
        torch.add(y, x, out=z)
        torch.add(x[:part], y[:part], out=z[:part])

    return move


def _scanning(shape: tuple[int, int, int], setting: str) -> Callable[[], object]:
    decay, inputs = torch.rand(shape).requires_grad_(), torch.randn(shape).requires_grad_()
    gradient = torch.randn(shape)

    def scan() -> object:
        with _setting(setting):
            return torch.autograd.grad(linear_scan(decay, inputs), (decay, inputs), gradient)

    return scan


@contextmanager
def _setting(value: str) -> Iterator[None]:
    before = os.environ.get(SETTING)
    os.environ[SETTING] = value
    try:
        yield
    finally:
        os.environ.pop(SETTING)
        if before is not None:
            os.environ[SETTING] = before


def table(result: dict[str, Any]) -> Table:
    """Each path at each length."""
    rows = [
        (length, each["label"], f"{1e3 * each['median_seconds']:.1f}", str(Ratio(**each["ratio"])))
        for length, entries in result["lengths"].items()
        for each in entries
    ]
    settings = result["settings"]
    return Table(
        caption=f"Linear scan, {settings['batch']} x length x {settings['width']}, forward and backward",
        columns=("length", "path", "ms", "over the time of its bytes [95 %]"),
        rows=rows,
        numeric=(0, 2, 3),
        note=f"{settings['threads']} threads, {settings['rounds']} rounds in turns",
    )
