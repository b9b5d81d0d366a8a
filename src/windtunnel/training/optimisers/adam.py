"""Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1).

g = g + weight_decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²
w = w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
"""

import torch
from torch import nn

from windtunnel.training.optimisers.groups import parameter_groups
from windtunnel.training.settings import TrainingSettings


def build(model: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """`torch.optim.Adam`: the decay joins the gradient after clipping, and so is divided by sqrt(v)."""
    first, second = settings.betas
    groups = parameter_groups(model, settings.weight_decay, settings.eps)
    return [torch.optim.Adam(groups, lr=settings.learning_rate, betas=(first, second), eps=settings.eps, fused=True)]
