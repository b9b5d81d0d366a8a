"""PaLM's Adafactor, without factoring (Chowdhery et al. 2022, arXiv 2204.02311, section 5; Shazeer & Stern 2018).

    b2 = 1 - k^-0.8;  v = b2 v + (1 - b2) (g² + 1e-30);  u = g / sqrt(v);  u = u / max(1, RMS(u))
    m = b1 m + (1 - b1) lr max(1e-3, RMS(w)) u
    w = w - weight_decay lr² w - m

k counts steps from 1; each RMS is over a whole tensor. There is no bias correction: b2 = 0 makes the first u a sign,
and the momentum that begins at 0 is the warm-up. The clipping of u is T5X's default, which the paper does not mention.
Its weight decay is lr² (`weight_decay` 1); it names no exception, so gains decay like everything else.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from windtunnel.training.settings import TrainingSettings

_DECAY_EXPONENT, _SQUARE_FLOOR, _SCALE_FLOOR, _LARGEST_UPDATE = 0.8, 1e-30, 1e-3, 1.0


class Adafactor(torch.optim.Optimizer):
    """The equations above for each parameter that has a gradient; nothing is read back from the device."""

    def __init__(self, parameters: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter; a closure is not called."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)  # in main memory, as torch's own optimisers keep it
            state["square"], state["update"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        rate, momentum = group["lr"], group["momentum"]
        square: Tensor = state["square"]
        square.lerp_(gradient.square().add_(_SQUARE_FLOOR), float(state["step"].item() ** -_DECAY_EXPONENT))
        update = gradient / square.sqrt()
        scale = rate * _rms(weight).clamp(min=_SCALE_FLOOR) / (_rms(update) / _LARGEST_UPDATE).clamp(min=1.0)
        state["update"].lerp_(update.mul_(scale), 1 - momentum)
        weight.mul_(1 - group["weight_decay"] * rate**2).sub_(state["update"])


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def build(model: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """One Adafactor over all parameters; the first of the betas is its momentum."""
    weights = list(model.parameters())
    return [Adafactor(weights, settings.learning_rate, settings.betas[0], settings.weight_decay)]
