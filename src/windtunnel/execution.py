"""How a model is run, never what it computes: device, precision, threads, compilation, recomputation."""

import functools
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from torch import nn

from windtunnel.errors import InputError
from windtunnel.kernels.memory import tune_allocator
from windtunnel.spec import Spec

# Of control groups, version 2 and 1; a number of bytes, or "max".
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Execution(Spec):
    """Settings that may change a result by rounding only.

    device:      "auto" takes a GPU if there is one; else "cpu", "cuda", "cuda:1", "mps".
    dtype:       "auto" is bfloat16 autocast on GPUs that have it, float32 elsewhere (bfloat16 is 12x slower on a CPU
                 without AMX). Weights and optimiser state are float32 always. "float32" switches TF32 off, "tf32" on.
    compile:     in training, `torch.compile` of each block (decoding has `inference.compiled`). Pays on GPUs and for
                 long runs; costs 10-40 s on a CPU to gain 5-15 %.
    checkpoint:  recompute each block's activations in the backward pass: less memory, one more forward pass.
    threads:     CPU threads; None leaves torch's number.
    workers:     threads that read training data ahead of the steps; with 0 each step reads its own. The batches are
                 the same. None is one beside a GPU and none on a CPU, whose steps take hundreds of times as long as
                 reading, and where a thread would take from the computing.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    compile: bool = False
    checkpoint: bool = False
    threads: int | None = None
    workers: int | None = None

    def validate(self) -> None:
        self.require(self.workers is None or self.workers >= 0, f"workers is {self.workers}; it must be at least 0")
        enough = self.threads is None or self.threads >= 1
        self.require(enough, f"threads is {self.threads!r}; it must be at least 1, or None for torch's own number")

    def resolve(self) -> "Resolved":
        """What these settings mean on this machine. Raises `InputError` for a device that is not there."""
        device = _find_device(self.device)
        dtype = self.dtype
        if dtype == "auto":
            has_bfloat16 = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
            dtype = "bfloat16" if has_bfloat16 else "float32"
        workers = int(device.type == "cuda") if self.workers is None else self.workers
        threads = self.threads or torch.get_num_threads()
        return Resolved(device, dtype, threads, compile=self.compile, checkpoint=self.checkpoint, workers=workers)


@dataclass(frozen=True)
class Resolved:
    """Execution settings with nothing left open."""

    device: torch.device
    dtype: Literal["float32", "tf32", "bfloat16"]
    threads: int
    compile: bool
    checkpoint: bool
    workers: int = 1

    def to_json(self) -> dict[str, Any]:
        """The settings and the hardware's name, for the records of a run."""
        return {
            "device": str(self.device),
            "hardware": hardware_name(self.device),
            "dtype": self.dtype,
            "threads": self.threads,
            "compile": self.compile,
            "checkpoint": self.checkpoint,
            "workers": self.workers,
        }

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a training forward pass."""
        if self.dtype != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set threads, TF32 and deterministic kernels for a while; put everything back afterwards.

        With deterministic kernels and a fixed number of threads the same run gives the same bits on the same machine.
        An operator that has no deterministic form goes on with torch's own warning.
        """
        tune_allocator()
        if self.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        deterministic = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        memory: Any = torch.utils.deterministic
        fill = memory.fill_uninitialized_memory
        try:
            torch.set_num_threads(self.threads)
            torch.set_float32_matmul_precision("high" if self.dtype == "tf32" else "highest")
            torch.use_deterministic_algorithms(True, warn_only=True)
            memory.fill_uninitialized_memory = False
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill

    def prepare(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and arrange recomputation and compilation; no parameter is renamed."""
        model = model.to(self.device)
        blocks = model.get_submodule("blocks")
        for block in blocks.children():
            if self.checkpoint:
                block.forward = functools.partial(torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=False)
            if self.compile:
                block.compile()
        return model

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next is honest."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def measured_peak(resolved: Resolved, cache: Path | None = None) -> float:
    """The fastest square matrix product of a short sweep, in FLOP/s, at the run's precision and threads.

    Takes about a second; with a `cache` folder the result is kept in it, once a machine.
    """
    path = None if cache is None else cache / "peaks.json"
    peaks = {} if path is None else _read_peaks(path)
    key = (
        f"{hardware_name(resolved.device)} | {resolved.dtype} | {resolved.threads} threads | torch {torch.__version__}"
    )
    if key not in peaks:
        with resolved.applied():
            peaks[key] = max(_product_rate(resolved, size) for size in _sweep(resolved.device))
        if path is not None:
            _write_peaks(path, peaks)
    return peaks[key]


def hardware_name(device: torch.device) -> str:
    """The model of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def host_memory(limits: tuple[Path, ...] = _MEMORY_LIMITS) -> float | None:
    """Bytes that the processes of this machine may hold: its own, or fewer where a container is given fewer; None
    where that is not known."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    allowed = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    for path in limits:
        text = path.read_text().strip() if path.is_file() else ""
        allowed += [float(text)] if text.isdecimal() and int(text) > 0 else []
    return min(allowed)


def _find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is {name!r}; it must be auto, cpu, cuda, cuda:N or mps") from None
    count = torch.cuda.device_count() if device.type == "cuda" else int(torch.backends.mps.is_available())
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device is {name!r}; it must be auto, cpu, cuda, cuda:N or mps")
    if device.type != "cpu" and (device.index or 0) >= count:
        raise InputError(f"device is {name!r}, but this machine has {count} of that kind; use cpu or auto")
    return device


def _sweep(device: torch.device) -> tuple[int, ...]:
    return (512, 1024, 1536, 2048) if device.type == "cpu" else (2048, 4096, 8192)


def _product_rate(resolved: Resolved, size: int, seconds: float = 0.15) -> float:
    dtype = torch.bfloat16 if resolved.dtype == "bfloat16" else torch.float32
    left, right = (torch.randn(size, size, device=resolved.device, dtype=dtype) for _ in range(2))
    out = torch.mm(left, right)
    alone = resolved.device.type == "cpu" and resolved.threads == 1
    clock = time.process_time if alone else time.perf_counter  # one thread's own time is the same on a busy machine
    best, spent = float("inf"), 0.0
    while spent < seconds:
        resolved.synchronize()
        began = clock()
        torch.mm(left, right, out=out)
        resolved.synchronize()
        took = clock() - began
        best, spent = min(best, took), spent + took
    return 2 * size**3 / best


def _read_peaks(path: Path) -> dict[str, float]:
    try:
        peaks: dict[str, float] = json.loads(path.read_text())
        return peaks
    except (OSError, ValueError):
        return {}


def _write_peaks(path: Path, peaks: dict[str, float]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(peaks, indent=1))
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # a cache that cannot be written costs a second next time
