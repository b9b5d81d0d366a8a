"""Which route a kernel takes: by hand where torch's own composite is slow, plain torch everywhere else."""

from contextlib import AbstractContextManager, nullcontext

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


def autocast(x: Tensor) -> Tensor:
    """x in the dtype in which autocast would multiply it."""
    device = x.device.type
    enabled = device != "meta" and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if enabled else x


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A region in which products keep the dtype of what is multiplied."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
