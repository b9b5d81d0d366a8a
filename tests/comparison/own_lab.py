"""A package of one's own, as a user would write it: one recipe that works, one whose runs fail."""

from typing import Any

import torch
from torch import Tensor

from windtunnel import recipes
from windtunnel.mixers import Attention
from windtunnel.mixers.attention import AttentionLayer
from windtunnel.model import LanguageModel
from windtunnel.recipes.sizing import Training

TRAINING = Training(learning_rate=6e-3, weight_decay=0.0, why="a test")


class Broken(Attention):
    def build(self, width: int) -> "BrokenLayer":
        return BrokenLayer(self, width)


class BrokenLayer(AttentionLayer):
    def forward(self, x: Tensor, context: Any, state: Any = None) -> tuple[Tensor, Any]:
        if torch.is_grad_enabled():
            raise RuntimeError("the idea does not work")
        return super().forward(x, context, state)


def plain(**settings: Any) -> LanguageModel:
    return recipes.get("llama")(**settings)


def broken(**settings: Any) -> LanguageModel:
    spec = recipes.get("llama")(**settings)
    block = spec.blocks[0].replace(mixer=Broken(heads=4))
    return spec.replace(blocks=(block,) * len(spec.blocks))
