"""Which route a kernel takes: by hand where torch's own composite is slow, plain torch everywhere else."""

import torch
from torch import Tensor


def by_hand(x: Tensor) -> bool:
    """True where a hand-written autograd function pays: eager on a CPU.

    A compiler fuses the plain composite better than it can see through a function, and CUDA has fused operators.
    """
    return x.device.type in ("cpu", "meta") and not torch.compiler.is_compiling()


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 for float64 input."""
    return torch.promote_types(x.dtype, torch.float32)
