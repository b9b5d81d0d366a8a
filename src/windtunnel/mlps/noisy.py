"""Noisy top-k gating with importance and load losses (Shazeer et al. 2017, arXiv 1701.06538)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.layer import Context, Cost, Role
from windtunnel.mlps import balance
from windtunnel.mlps.routers import LinearRouterLayer, Router, Routing


class NoisyTopK(Router):
    """h = W x, H = h + ε σ with σ = softplus(W_noise x) + floor, gates = softmax of the k largest of H (eq. 3-5).

    ε ~ N(0, 1) is drawn in training only. importance, load: coefficients of CV² of Σ gates and of the estimated load
    (eq. 7, 11). floor: not in the paper's formula but in its authors' code. Both matrices start at zero: routing starts
    as noise of deviation ln 2 + floor, balanced. With as many choices as experts, or without noise, the load is a plain
    count, which has no gradient.
    """

    choices: int = 4
    importance: float = 0.1
    load: float = 0.1
    floor: float = 1e-2

    def validate(self) -> None:
        self.require(self.choices > 1, f"choices must be at least 2 (one gate alone is always 1), got {self.choices}")

    @property
    def active(self) -> int:
        return self.choices

    def build(self, width: int, experts: int) -> "NoisyTopKLayer":
        return NoisyTopKLayer(self, width, experts)


class NoisyTopKLayer(LinearRouterLayer):
    def __init__(self, spec: NoisyTopK, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.spec = spec
        self.weight = self.declare("weight", (experts, width), Role("reads", fan_in=width, constant=0.0))
        self.noise = self.declare("noise", (experts, width), Role("reads", fan_in=width, constant=0.0))

    def forward(self, x: Tensor, context: Context) -> Routing:
        spec, clean = self.spec, self.logits(x)  # n e
        noisy, deviation = clean, None
        if context.seed is not None:
            deviation = F.softplus(self.product(x, self.noise)) + spec.floor
            draw = torch.randn(clean.shape, generator=context.generator("router noise"))
            noisy = clean + draw.to(clean) * deviation
        best = noisy.topk(min(spec.choices + 1, self.experts))
        chosen = best.indices[:, : spec.choices]
        gates = best.values[:, : spec.choices].softmax(-1)
        importance = torch.zeros_like(clean).scatter(-1, chosen, gates).sum(0)
        load = balance.counts(chosen, self.experts)
        if deviation is not None and spec.choices < self.experts:
            load = load_probability(clean, noisy, deviation, spec.choices, best.values).sum(0)
        losses = {
            "importance_loss": spec.importance * balance.squared_variation(importance),
            "load_loss": spec.load * balance.squared_variation(load),
        }
        metrics = balance.statistics(chosen, spec.choices, noisy.softmax(-1), self.experts)
        return Routing(chosen, gates, losses=losses, metrics=metrics)

    def idle_parameters(self) -> int:
        return self.noise.numel()  # met in training alone

    def costs(self, length: int) -> list[Cost]:
        product = 2.0 * self.width * self.experts
        return [*super().costs(length), Cost("router", training=product)]


def load_probability(clean: Tensor, noisy: Tensor, deviation: Tensor, choices: int, best: Tensor) -> Tensor:
    """P [n e]: that an expert would be chosen if its own noise alone were drawn again (eq. 8-9).

    Φ((clean - threshold) / deviation), the threshold being the k-th largest of the other experts' noisy logits: of the
    sorted values `best` [n k+1], the last for an expert that is chosen and the one before for another.
    """
    inside = noisy > best[:, choices : choices + 1]
    threshold = torch.where(inside, best[:, choices : choices + 1], best[:, choices - 1 : choices])
    probability: Tensor = torch.special.ndtr((clean - threshold) / deviation)
    return probability
