"""Allocator settings: keep large blocks in the process instead of giving them back to the kernel after every use."""

import ctypes
import platform
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


def tune_allocator() -> bool:
    """Stop glibc from unmapping freed tensors, whose pages would fault again at the next step.

    Call before the first tensor is made. Returns whether anything was set: false outside Linux with glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    return bool(libc.mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
