"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for matrices, AdamW for all else.

    m = 0.95 m + 0.05 g;  u = the nearest semi-orthogonal matrix to 0.05 g + 0.95 m, by five Newton-Schulz steps
    w = w - lr 0.2 sqrt(max(rows, columns)) u - lr weight_decay w

The factor gives the update the size of AdamW's (Liu et al. 2025, arXiv 2502.16982, section 2.2), so that one learning
rate and one decay serve both. Embedding and unembedding tables, vectors and stacks of matrices go to AdamW.
"""

import torch
from torch import nn

from windtunnel.init import roles
from windtunnel.training.optimisers.groups import parameter_groups
from windtunnel.training.settings import TrainingSettings

_MATRICES = frozenset({"reads", "writes", "inner"})


def build(model: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """`torch.optim.Muon`, whose iteration runs in bfloat16, and `torch.optim.AdamW`."""
    table, rate = roles(model), settings.learning_rate
    names = [name for name, weight in model.named_parameters() if table[name].kind in _MATRICES and weight.ndim == 2]
    ours = {id(model.get_parameter(name)) for name in names}
    groups: dict[bool, list[dict[str, object]]] = {True: [], False: []}
    for group in parameter_groups(model, settings.weight_decay):
        for side, part in groups.items():
            picked = [weight for weight in group["params"] if (id(weight) in ours) is side]
            if picked:
                part.append({**group, "params": picked})
    first, second = settings.betas
    others = torch.optim.AdamW(groups[False], lr=rate, betas=(first, second), eps=settings.eps, fused=True)
    if not groups[True]:
        return [others]
    return [torch.optim.Muon(groups[True], lr=rate, adjust_lr_fn="match_rms_adamw"), others]
