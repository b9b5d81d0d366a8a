"""Stochastic gradient descent with momentum (Sutskever et al. 2013), in torch's form.

g = g + weight_decay w;  m = b1 m + g (m = g in the first step);  w = w - lr m
"""

import torch
from torch import nn

from windtunnel.training.optimisers.groups import parameter_groups
from windtunnel.training.settings import TrainingSettings


def build(model: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """`torch.optim.SGD`; the first of the betas is its momentum."""
    groups = parameter_groups(model, settings.weight_decay, family="sgd")
    return [torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.betas[0], fused=True)]
