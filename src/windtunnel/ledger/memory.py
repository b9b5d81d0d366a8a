"""Bytes: parameters, gradients and optimiser state while training, and the state that decoding carries."""

from collections.abc import Callable
from typing import NamedTuple

SHORTEST = 128
_FARTHEST = 1 << 40


class Memory(NamedTuple):
    """Bytes held throughout training; activations are not in it, they are measured."""

    parameters: int
    gradients: int
    optimiser: int

    @property
    def total(self) -> int:
        """All three."""
        return sum(self)


def memory(
    n_total: int, parameter: int = 4, gradient: int = 4, master_copy: bool = False, state: int | None = None
) -> Memory:
    """state: bytes that the optimiser keeps; None is AdamW's, two float32 moments of each parameter.

    master_copy: a float32 copy comes on top, where parameters are narrower.
    """
    kept = 8 * n_total if state is None else state
    return Memory(n_total * parameter, n_total * gradient, kept + (4 * n_total if master_copy else 0))


def curve(state_bytes: Callable[[int], int], length: int) -> dict[int, int]:
    """Decoding state of one sequence at 128, 256, ... up to 8 x `length`, and at `length` itself."""
    doubling = [SHORTEST << step for step in range(64) if SHORTEST << step <= 8 * length]
    return {at: state_bytes(at) for at in sorted({*doubling, length})}


def crossover(first: Callable[[int], float], second: Callable[[int], float]) -> int | None:
    """The first length at which the smaller of two growing figures is no longer the smaller; None if never.

    With the state of a model and the bytes of its parameters: when the cache outweighs the weights. With the states of
    two models: when one overtakes the other.
    """
    low, high = 1, _FARTHEST
    start, end = first(low) - second(low), first(high) - second(high)
    if start == 0 or start * end > 0:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if (first(middle) - second(middle)) * start > 0:
            low = middle
        else:
            high = middle
    return high
