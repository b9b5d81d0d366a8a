"""The linear recurrence as a compiled operator for CPUs: one pass over memory forwards, one backwards.

Off unless the environment variable WINDTUNNEL_COMPILED_SCAN is 1. The first use compiles `scan_native.c` with the C
compiler that CC names (else `cc`), for one thread if it has no OpenMP, and keeps the result in the user's cache folder;
where that fails, one warning says why and the torch path goes on. Results differ from the torch path's by rounding: the
order of the sums is another.
"""

import ctypes
import functools
import os
import subprocess
import warnings
from pathlib import Path

import torch
from torch import Tensor

from windtunnel.kernels import native

SETTING = "WINDTUNNEL_COMPILED_SCAN"
_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native", "-std=c99")
_NAMES = {torch.float32: "float32", torch.float64: "float64"}
_WIDEST, _NARROWEST = 1024, 64  # channels of one piece of work: BLOCK of scan_native.c, and vectors are filled
_FEW = 1 << 15  # numbers below which another thread costs more than it gains


def wanted(x: Tensor) -> bool:
    """Whether this operator is switched on, applies to x and could be compiled."""
    if os.environ.get(SETTING) != "1" or x.device.type != "cpu" or x.dtype not in _NAMES:
        return False
    return library() is not None


def forward(decay: Tensor, inputs: Tensor, initial: Tensor | None, states: Tensor) -> None:
    """Fill states [b t d], contiguous."""
    _run("forward", states, [decay, inputs, initial], [states])


def adjoint(
    decay: Tensor, states: Tensor, initial: Tensor | None, gradient: Tensor, d_decay: Tensor, d_inputs: Tensor
) -> None:
    """Fill d_decay and d_inputs [b t d], contiguous."""
    _run("adjoint", states, [decay, states, initial, gradient], [d_decay, d_inputs])


def _run(name: str, like: Tensor, given: list[Tensor | None], filled: list[Tensor]) -> None:
    compiled = library()
    assert compiled is not None
    function = getattr(compiled, f"{_NAMES[like.dtype]}_{name}")
    held = [tensor.contiguous() if tensor is not None else None for tensor in given]
    pointers = [ctypes.c_void_p(tensor.data_ptr() if tensor is not None else None) for tensor in (*held, *filled)]
    threads = torch.get_num_threads() if like.numel() > _FEW else 1
    sizes = (*like.shape, _channels(like.shape[2], like.shape[0], threads))
    function(*pointers, *(ctypes.c_ssize_t(size) for size in sizes), ctypes.c_int(threads))


def _channels(width: int, batch: int, threads: int) -> int:
    """Channels of a piece of work: all of them if rows keep every thread busy."""
    pieces = -(-threads // batch)
    return max(_NARROWEST, min(_WIDEST, -(-width // pieces)))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled operator, compiled now if this machine has none yet; None, after one warning, if it cannot be."""
    try:
        return ctypes.CDLL(str(native.compiled(_SOURCE, "CC", "cc", _FLAGS)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        warnings.warn(
            f"{SETTING}=1, but the scan could not be compiled and runs in torch: {reason}", RuntimeWarning, stacklevel=2
        )
        return None
