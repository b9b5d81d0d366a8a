"""The allocator's settings."""

import sys

from windtunnel.kernels import tune_allocator


def test_allocator_can_be_tuned_twice() -> None:
    assert tune_allocator() == tune_allocator()
    if sys.platform != "linux":
        assert not tune_allocator()
