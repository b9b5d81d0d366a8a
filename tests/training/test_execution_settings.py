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
RECIPES = ["llama", "diff_transformer", "griffin", "ngpt", "switch"]


def _stepped(recipe: str, dataset: Dataset, settings: Any, execution: Execution) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of a first step, and the peak bytes of tensors other than parameters, gradients and their like."""
    model = recipes.get(recipe)(**SIZES).build().initialize(1)
    trainer = Trainer(model, Sampler(dataset.train, 16, 0), settings, execution.resolve())
    found: dict[str, torch.Tensor] = {}

    def keep() -> torch.Tensor:
        found.update({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
        return torch.zeros(())

    trainer._clip = keep  # type: ignore[method-assign]
    with execution.resolve().applied():
        trainer.advance(0, None)
    return found, _peak(trainer)


def _peak(trainer: Trainer) -> int:
    trainer._forget_gradients()
    gc.collect()
    tracker = MemTracker()
    with tracker:
        trainer._backward(0)
    snapshot = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return int(snapshot["Total"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_recomputed_gradients_are_the_same_and_take_less_memory(
    recipe: str, dataset: Dataset, make_settings: Any
) -> None:
    settings = make_settings(batch_size=64, tokens=16 * 64)
    plain, much = _stepped(recipe, dataset, settings, EAGER)
    thrifty, little = _stepped(recipe, dataset, settings, EAGER.replace(checkpoint=True))
    assert plain.keys() == thrifty.keys()
    assert all(torch.equal(plain[name], thrifty[name]) for name in plain)
    assert little < 0.6 * much


@pytest.mark.parametrize("recipe", RECIPES[:-1])  # a router decides otherwise where two experts are near each other
def test_bfloat16_gradients_are_near_and_in_float32(recipe: str, dataset: Dataset, make_settings: Any) -> None:
    settings = make_settings(batch_size=16, tokens=16 * 16)
    plain, _ = _stepped(recipe, dataset, settings, EAGER)
    narrow, _ = _stepped(recipe, dataset, settings, EAGER.replace(dtype="bfloat16"))
    assert all(gradient.dtype == torch.float32 for gradient in narrow.values())
    left, right = (torch.cat([values[name].flatten() for name in sorted(plain)]) for values in (plain, narrow))
    assert 0 < (left - right).norm() / left.norm() < 0.05
