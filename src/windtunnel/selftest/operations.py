"""Self-test 6: the ledger against torch's counter of operations, parameters and states against the real tensors."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from windtunnel import recipes
from windtunnel.ledger import count, ledger
from windtunnel.root import ModelLayer
from windtunnel.selftest.check import Lab, Outcome, worst
from windtunnel.selftest.tiny import state_tensors, tiny_model, tokens_for

SAME = 1e-6  # relative; counts are sums of integers
LENGTH = 96  # one whole block of the kernel that stores its maps, and half of another
_LENGTHS = (1, 5, 6, 7, 40)


def added_in_place(total: Any, left: Any, right: Any, out_shape: Any = None, **_: Any) -> int:
    """Operations of `baddbmm_`, which torch's own table lacks: it has the form that makes a new tensor."""
    return int(2 * math.prod(left) * right[-1])


IN_PLACE = {torch.ops.aten.baddbmm_: added_in_place}


def counted(work: Callable[[], object]) -> int:
    """Operations that torch counts while `work` runs. Its fused kernels are not counted on a CPU, hence MATH."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        work()
    return int(counter.get_total_flops())


def executed(model: ModelLayer, tokens: Tensor) -> tuple[float, float]:
    """How far the ledger's hardware column is from what a forward pass, and one with a backward pass, executes."""
    found = ledger(model.spec, tokens.shape[1])
    noise = sum(cost.training for cost in model.costs(tokens.shape[1]))  # comes with the seed of a training step
    forward = counted(lambda: model(tokens)) / tokens.numel()
    step = counted(lambda: model(tokens).logits.sum().backward()) / tokens.numel()
    return (
        abs(forward / found.forward.hardware - 1),
        abs(step / (found.training.hardware - 3 * noise) - 1),
    )


@torch.no_grad()
def held_bytes(model: ModelLayer, length: int, batch: int = 3) -> tuple[int, int]:
    """Bytes of a state's tensors after so many tokens, and what the ledger says."""
    tokens = tokens_for(model.spec, batch=batch, length=length)
    held = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(model(tokens).state))
    return held, batch * model.state_bytes(length, model.embedding.weight.dtype.itemsize)


def operations(lab: Lab) -> Outcome:
    """FLOPs of every recipe, forward and in training."""
    found = {}
    for recipe in recipes.names():
        model = tiny_model(recipe)
        tokens = tokens_for(model.spec, length=LENGTH)
        found[recipe], found[f"{recipe}, training"] = executed(model, tokens)
    return worst(found, SAME)


def sizes(lab: Lab) -> Outcome:
    """Parameters of every recipe by the meta device and in memory, and the bytes of its state: no difference at all."""
    wrong = []
    for recipe in recipes.names():
        model = tiny_model(recipe)
        if count(model) != ledger(model.spec, LENGTH).parameters:
            wrong.append(f"{recipe}: parameters")
        for length in _LENGTHS:
            held, said = held_bytes(model, length)
            if held != said:
                wrong.append(f"{recipe}: {held} bytes after {length} tokens, the ledger says {said}")
    recipes_seen = len(recipes.names())
    shown = f"{recipes_seen} recipes, states after {', '.join(map(str, _LENGTHS))} tokens: " + (
        "; ".join(wrong) or "equal"
    )
    return Outcome(not wrong, shown, {"recipes": recipes_seen, "wrong": wrong})
