"""PaLM's Adafactor, without factoring (Chowdhery et al. 2022, arXiv 2204.02311, section 5; Shazeer & Stern 2018).

    b2 = 1 - k^-0.8;  v = b2 v + (1 - b2) (g² + 1e-30);  u = g / sqrt(v);  u = u / max(1, RMS(u))
    m = b1 m + (1 - b1) lr max(1e-3, RMS(w)) u
    w = w - weight_decay lr² w - m

k counts steps from 1; each RMS is over a whole tensor. There is no bias correction: b2 = 0 makes the first u a sign,
and the momentum that begins at 0 is the warm-up. The clipping of u is T5X's default, which the paper does not mention.
Its weight decay is lr² (`weight_decay` 1); it names no exception, so gains decay like everything else.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from windtunnel.training.settings import TrainingSettings

MeanSquares = Callable[[Sequence[tuple[nn.Parameter, Tensor]]], Tensor]
_DECAY_EXPONENT, _SQUARE_FLOOR, _SCALE_FLOOR, _LARGEST_UPDATE = 0.8, 1e-30, 1e-3, 1.0


class Adafactor(torch.optim.Optimizer):
    """The equations above for each parameter that has a gradient; nothing is read back from the device.

    mean_squares: of whole tensors, of which `step` may see parts only. The gradients are used up.
    """

    def __init__(self, parameters: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.mean_squares: MeanSquares = _mean_squares

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter; a closure is not called."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                self._scale_gradient(weight, weight.grad)
            updates = [(weight, weight.grad) for weight in weights]
            before, updated = self.mean_squares([*zip(weights, weights, strict=True), *updates]).sqrt().chunk(2)
            scales = group["lr"] * before.clamp(min=_SCALE_FLOOR) / (updated / _LARGEST_UPDATE).clamp(min=1.0)
            for (weight, update), scale in zip(updates, scales, strict=True):
                kept = self.state[weight]["update"].lerp_(update.mul_(scale), 1 - group["momentum"])
                weight.mul_(1 - group["weight_decay"] * group["lr"] ** 2).sub_(kept)

    def _scale_gradient(self, weight: Tensor, gradient: Tensor) -> None:
        """Take the gradient into the mean square, and divide it by its root: g becomes u."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)  # in main memory, as torch's own optimisers keep it
            state["square"], state["update"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        square: Tensor = state["square"]
        square.lerp_(gradient.square().add_(_SQUARE_FLOOR), float(state["step"].item() ** -_DECAY_EXPONENT))
        gradient.div_(square.sqrt())


def _mean_squares(values: Sequence[tuple[nn.Parameter, Tensor]]) -> Tensor:
    return torch.stack([value.square().mean() for _, value in values])


def build(model: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """One Adafactor over all parameters; the first of the betas is its momentum."""
    weights = list(model.parameters())
    return [Adafactor(weights, settings.learning_rate, settings.betas[0], settings.weight_decay)]
