"""Recomputation and bfloat16 against an eager float32 step: the same gradients, or near ones, and less memory."""

import gc
from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from windtunnel import recipes
from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import Dataset
from windtunnel.execution import Execution
from windtunnel.training.loop import Trainer

EAGER = Execution(device="cpu", threads=1)
SIZES = {"layers": 6, "width": 16, "vocab": 257, "context": 16}
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("diff_transformer", "griffin", "ngpt")]


def _trainer(recipe: str, dataset: Dataset, settings: Any, execution: Execution) -> Trainer:
    model = recipes.get(recipe)(**SIZES).build().initialize(1)
    return Trainer(model, Sampler(dataset.train, 16, 0), settings, execution.resolve())


def _gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Those of a first step, before they are clipped."""
    found: dict[str, torch.Tensor] = {}

    def keep() -> torch.Tensor:
        found.update(
            {name: each.grad.clone() for name, each in trainer.model.named_parameters() if each.grad is not None}
        )
        return torch.zeros(())

    trainer._clip = keep  # type: ignore[method-assign]
    with trainer.execution.applied():
        trainer.advance(0, None)
    return found


def _peak(trainer: Trainer) -> int:
    """The most bytes that tensors have had at once in a forward and backward pass."""
    trainer.parts.forget_gradients()
    gc.collect()
    tracker = MemTracker()
    with tracker:
        trainer._backward(0)
    snapshot = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return int(snapshot["Total"])


@pytest.mark.parametrize("recipe", ["llama", *OTHERS, pytest.param("switch", marks=pytest.mark.slow)])
def test_recomputed_gradients_are_the_same_and_take_less_memory(
    recipe: str, dataset: Dataset, make_settings: Any
) -> None:
    settings = make_settings(batch_size=64, tokens=16 * 64)
    trainers = [_trainer(recipe, dataset, settings, EAGER.replace(checkpoint=again)) for again in (False, True)]
    plain, thrifty = (_gradients(each) for each in trainers)
    assert plain.keys() == thrifty.keys()
    assert all(torch.equal(plain[name], thrifty[name]) for name in plain)
    much, little = (_peak(each) for each in trainers)
    assert little < 0.6 * much


@pytest.mark.parametrize("recipe", ["llama", *OTHERS])  # a router may choose otherwise between two near experts
def test_bfloat16_gradients_are_near_and_in_float32(recipe: str, dataset: Dataset, make_settings: Any) -> None:
    settings = make_settings(batch_size=16, tokens=16 * 16)
    executions = (EAGER, EAGER.replace(dtype="bfloat16"))
    plain, narrow = (_gradients(_trainer(recipe, dataset, settings, each)) for each in executions)
    assert all(gradient.dtype == torch.float32 for gradient in narrow.values())
    left, right = (torch.cat([values[name].flatten() for name in sorted(plain)]) for values in (plain, narrow))
    assert 0 < (left - right).norm() / left.norm() < 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["llama", "griffin", "switch"])
def test_a_gpu_gives_the_same_bits_twice(recipe: str, dataset: Dataset, make_settings: Any) -> None:
    execution = Execution(device="cuda", dtype="bfloat16")
    settings = make_settings(batch_size=16, tokens=16 * 16)
    once, again = (_gradients(_trainer(recipe, dataset, settings, execution)) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)
