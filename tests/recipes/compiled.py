"""Compiled equals eager, in a process of its own: the compiler cannot look through the shape checks of the tests.

`python -m tests.recipes.compiled llama` exits with 0 if it does.
"""

import sys

import torch

from tests.recipes.cases import model_of, tokens_for
from windtunnel.execution import Execution

SINGLE = 2e-5  # float32, logits of order 1: the compiler fuses and reorders
GRADIENTS = 1e-3  # of the largest entry


def main(case: str) -> None:
    """Loss and every gradient of a case, compiled as a run would compile it."""
    eager, compiled = model_of(case, layers=2), model_of(case, layers=2)
    Execution(device="cpu", compile=True, threads=1).resolve().prepare(compiled)
    tokens = tokens_for(eager.spec, length=33)
    expected, found = (model.loss(tokens[:, :-1], tokens[:, 1:]).total for model in (eager, compiled))
    torch.testing.assert_close(found, expected, rtol=SINGLE, atol=SINGLE)
    expected.backward()
    found.backward()
    for (name, left), right in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        assert left.grad is not None
        assert right.grad is not None
        worst = (left.grad - right.grad).abs().max() / left.grad.abs().max().clamp(min=1e-6)
        assert worst < GRADIENTS, f"{name}: {worst:.2g}"


if __name__ == "__main__":
    main(sys.argv[1])
