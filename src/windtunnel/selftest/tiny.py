"""Every recipe at a size that runs in milliseconds."""

from typing import Any

import torch
from torch import Tensor

from windtunnel import recipes
from windtunnel.inference import states
from windtunnel.root import Model, ModelLayer

VOCAB, CONTEXT, LENGTH = 97, 96, 40
SIZES: dict[str, Any] = {"vocab": VOCAB, "layers": 3, "width": 64, "context": CONTEXT}
# A band shorter than the sequences, or it would never be felt.
OWN: dict[str, dict[str, Any]] = {
    "gpt3": {"window": 7},
    "gpt_neo": {"window": 7},
    "griffin": {"window": 7},
    "longformer": {"window": 9, "lowest": 3},
    "sparse_transformer": {"stride": 6},
    "bigbird": {"block": 3, "first": 1, "chosen": 1},
    "topk_attention": {"top": 5},
}


def tiny_spec(recipe: str, **settings: Any) -> Model:
    """A recipe's spec at these sizes."""
    return recipes.get(recipe)(**{**SIZES, **OWN.get(recipe, {}), **settings})


def tiny_model(recipe: str, dtype: torch.dtype = torch.float32, **settings: Any) -> ModelLayer:
    """Its module, initialised with seed 0 and disturbed."""
    return disturbed(tiny_spec(recipe, **settings).build().initialize(0).to(dtype))


def disturbed(model: ModelLayer, seed: int = 0) -> ModelLayer:
    """The same module with noise on biases, gains and whatever else starts at a special value, so that each is felt."""
    dtype = model.embedding.weight.dtype
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or not parameter.any():
                noise = torch.randn(parameter.shape, generator=draw, dtype=dtype)
                parameter.add_(0.2 * parameter.abs().mean().clamp(min=0.25) * noise)
    return model


def tokens_for(spec: Model, batch: int = 2, length: int = LENGTH, seed: int = 1) -> Tensor:
    """Random token ids [b t]."""
    return torch.randint(0, spec.vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def state_tensors(state: Any) -> list[Tensor]:
    """Every tensor that a state holds."""
    return states.flat(state.blocks)
