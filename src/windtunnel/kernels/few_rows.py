"""The product y = x Wᵀ of few rows, for compiled decoding on a CPU.

A step of decoding multiplies every weight by one vector for each text, and by one for each drafted token. Libraries for
large products need two to three times as long for 2 to 16 rows as for one; `few_rows.cpp` reads the weights as they
lie, once. Compiled with the C++ compiler that CXX names (else `g++`) and kept in the user's cache folder.
"""

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.kernels import native

_SOURCE = Path(__file__).with_suffix(".cpp")
# Sums may be reordered; nothing else that is fast and loose, so that NaN and infinity stay what they are.
_REORDERED = ("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno", "-ffp-contract=fast")
_FLAGS = ("-O3", "-march=native", "-std=c++20", *_REORDERED)
SHIM = "AOTITorchError aoti_torch_cpu_few_rows(AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle* y)"


def few_rows_reference(x: Tensor, weight: Tensor) -> Tensor:
    """x [n d] times the transpose of weight [v d]."""
    return F.linear(x, weight)


def few_rows(x: Tensor, weight: Tensor) -> Tensor:
    """`few_rows_reference` in float32 on a CPU, both contiguous, by the compiled code.

    Raises `OSError` or `subprocess.SubprocessError` where it cannot be compiled.
    """
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"few_rows: expected float32 on a CPU, got {x.dtype} and {weight.dtype} on {x.device}")
    x, weight = x.contiguous(), weight.contiguous()
    y = x.new_empty(x.shape[0], weight.shape[0])
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, weight, y)]
    sizes = [ctypes.c_ssize_t(size) for size in (*x.shape, weight.shape[0])]
    library().few_rows(*pointers, *sizes, ctypes.c_int(torch.get_num_threads()))
    return y


# Takes the place of products in a program: inductor calls SHIM for it. Here it is what the program is compared with.
@torch.library.custom_op("windtunnel::few_rows", mutates_args=(), tags=(torch.Tag.needs_contiguous_strides,))
def product(x: Tensor, weight: Tensor) -> Tensor:
    """x [.. d] times the transpose of weight [v d], as one operator."""
    return F.linear(x, weight)


@product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled code, in reach of programs that are loaded after it."""
    torch_folder = Path(torch.__file__).parent
    linked = (f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}", "-Wl,--no-as-needed", "-ltorch_cpu")
    path = native.compiled(_SOURCE, "CXX", "g++", (*_FLAGS, *linked))
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
