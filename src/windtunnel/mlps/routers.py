"""Routers as values: which experts a token meets, and how much each counts.

A router sees each token alone. What a training step adds (noise, jitter, capacity, random second choices) is there only
with `context.seed`: in evaluation and decoding every router is deterministic and serves every token, so that decoding
equals one pass. With capacity, training is not causal: whether a token is served depends on others of its group.

b sequences, t tokens, n = b t, e experts, c choices of a token, d width. Probabilities and gates are float32 (float64
for float64 input), whatever the precision of the rest.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.errors import InputError
from windtunnel.kernels.routing import no_autocast, working_dtype
from windtunnel.layer import EMPTY, Context, Cost, Layer, Role
from windtunnel.mlps import balance
from windtunnel.spec import Spec

BIAS_STEP = 1e-3  # of the loss-free balance: small beside the clipped norm; Adam makes its own step of any scale


class Routing(NamedTuple):
    """A decision: chosen [n c] experts, -1 where a choice came to nothing, and gates [n c]; weighted losses, metrics.

    drops: whether there can be a -1.
    """

    chosen: Tensor
    gates: Tensor
    drops: bool = False
    losses: Mapping[str, Tensor] = EMPTY
    metrics: Mapping[str, Tensor] = EMPTY


class Router(Spec):
    """Which experts a token meets."""

    @property
    def active(self) -> int:
        """How many experts a token meets, in evaluation."""
        raise NotImplementedError

    def build(self, width: int, experts: int) -> "RouterLayer":
        """The module that chooses among `experts`."""
        raise NotImplementedError


class RouterLayer(Layer):
    """Base of routers: `forward(x [n d], context) -> Routing`."""

    mechanism = "router"

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.width, self.experts = width, experts

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x Wᵀ in float32 or wider: rounded logits would change choices."""
        with no_autocast(x.device):
            return F.linear(x.to(working_dtype(x)), weight.to(working_dtype(x)))

    def costs(self, length: int) -> list[Cost]:
        return [Cost.matmul("router", 2.0 * self.width * self.experts, 5.0 * self.experts)]


class LinearRouterLayer(RouterLayer):
    """A router whose logits are x Wᵀ, without bias."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.weight = self.declare("weight", (experts, width), Role("reads", fan_in=width))

    def logits(self, x: Tensor) -> Tensor:
        """[n e]."""
        return self.product(x, self.weight)


class TopK(Router):
    """Dropless top-k: softmax over all experts, the `choices` largest, renormalised (Mixtral, arXiv 2401.04088).

    renormalise: off keeps the probabilities as gates. balance: coefficient of the load-balance loss, which counts all
    choices without dividing by them (uniform: `choices`), as Mixtral's published training code does. z_loss: of the
    router z-loss. loss_free: a bias for each expert that counts for the choice alone, not for the gates (Wang et al.
    2024, arXiv 2408.15664); its gradient is the sign of the expert's overload, so that the optimiser moves it, where
    the paper adds a constant step of its own.
    """

    choices: int = 2
    renormalise: bool = True
    balance: float = 1e-2
    z_loss: float = 0.0
    loss_free: bool = False

    def validate(self) -> None:
        self.require(self.choices > 0, f"choices must be positive, got {self.choices}")
        self.require(
            self.choices > 1 or not self.renormalise,
            "choices 1 with renormalise makes every gate 1, and the router learns nothing; set renormalise=False",
        )

    @property
    def active(self) -> int:
        return self.choices

    def build(self, width: int, experts: int) -> "TopKLayer":
        return TopKLayer(self, width, experts)


class TopKLayer(LinearRouterLayer):
    def __init__(self, spec: TopK, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.spec = spec
        self.bias = self.declare("bias", (experts,), Role("bias", constant=0.0)) if spec.loss_free else None

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.logits(x)  # n e
        probabilities = logits.softmax(-1)
        scores = probabilities if self.bias is None else logits + self.bias
        chosen = scores.topk(self.spec.choices).indices  # n c
        gates = probabilities.gather(-1, chosen)
        if self.spec.renormalise:
            gates = gates / gates.sum(-1, keepdim=True)
        losses = learned_losses(self.spec, logits, probabilities, chosen)
        if self.bias is not None:
            losses["bias_step"] = self._bias_step(self.bias, chosen)
        metrics = balance.statistics(chosen, self.spec.choices, probabilities, self.experts)
        return Routing(chosen, gates, losses=losses, metrics=metrics)

    def _bias_step(self, bias: Tensor, chosen: Tensor) -> Tensor:
        """Zero, with the gradient that lets the optimiser lower the bias of experts above the mean load."""
        load = balance.counts(chosen, self.experts)
        push = (bias * BIAS_STEP * (load - load.mean()).sign()).sum()
        return push - push.detach()


def learned_losses(
    spec: "TopK | Switch | GShard", logits: Tensor, probabilities: Tensor, chosen: Tensor, group: int | None = None
) -> dict[str, Tensor]:
    """The weighted losses that are switched on."""
    losses = {}
    if spec.balance:
        losses["balance_loss"] = spec.balance * balance.load_balance(chosen, probabilities, group)
    if spec.z_loss:
        losses["router_z_loss"] = spec.z_loss * balance.z_loss(logits)
    return losses


class Switch(Router):
    """The best expert alone, its probability kept as gate (Fedus et al. 2021, arXiv 2101.03961, section 2).

    capacity: an expert takes capacity x tokens / experts tokens of a training step's call; the others pass it by.
    jitter: a training step multiplies what the router sees by U(1 - jitter, 1 + jitter). balance, z_loss: coefficients.
    """

    capacity: float = 1.25
    jitter: float = 1e-2
    balance: float = 1e-2
    z_loss: float = 0.0

    def validate(self) -> None:
        self.require(self.capacity > 0, f"capacity must be positive, got {self.capacity}")

    @property
    def active(self) -> int:
        return 1

    def build(self, width: int, experts: int) -> "SwitchLayer":
        return SwitchLayer(self, width, experts)


class SwitchLayer(LinearRouterLayer):
    def __init__(self, spec: Switch, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.spec = spec

    def forward(self, x: Tensor, context: Context) -> Routing:
        training = context.seed is not None
        if training and self.spec.jitter:
            noise = torch.rand(x.shape, generator=context.generator("jitter")).to(x.device)
            x = x.to(working_dtype(x)) * (1 + self.spec.jitter * (2 * noise - 1))
        logits = self.logits(x)  # n e
        probabilities = logits.softmax(-1)
        gates, chosen = probabilities.max(-1, keepdim=True)  # n 1
        losses = learned_losses(self.spec, logits, probabilities, chosen)
        if training:
            chosen = balance.within_capacity(chosen, self.experts, self.spec.capacity, None)
        metrics = balance.statistics(chosen, 1, probabilities, self.experts)
        return Routing(chosen, gates, training, losses, metrics)


class GShard(Router):
    """The best two experts, their probabilities made to sum to one (GShard, arXiv 2006.16668, algorithm 1).

    capacity: in training an expert takes capacity x 2 x tokens / experts of each group of at most `group` tokens;
    second choices queue behind all first ones. second: when the second expert is used at all: always, never, above
    `threshold`, or with probability gate / threshold; the last is drawn in training only, evaluation always uses it.
    Gates are not raised again where an expert is left out. balance, z_loss: coefficients; the balance loss counts first
    choices. mesh: Mesh TensorFlow's capacity (GPT-Neo's), without the factor of 2: at most capacity / 2 of the choices
    fit.
    """

    capacity: float = 1.25
    group: int = 1024
    second: Literal["all", "none", "threshold", "random"] = "random"
    threshold: float = 0.2
    mesh: bool = False
    balance: float = 1e-2
    z_loss: float = 0.0

    def validate(self) -> None:
        self.require(self.capacity > 0, f"capacity must be positive, got {self.capacity}")
        self.require(self.group > 0, f"group must be positive, got {self.group}")
        self.require(0 < self.threshold <= 1, f"threshold must be above 0 and at most 1, got {self.threshold}")

    @property
    def active(self) -> int:
        return 1 if self.second == "none" else 2

    def build(self, width: int, experts: int) -> "GShardLayer":
        self.require(experts > 1, f"two experts are chosen among {experts}")
        return GShardLayer(self, width, experts)


class GShardLayer(LinearRouterLayer):
    def __init__(self, spec: GShard, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.spec = spec

    def forward(self, x: Tensor, context: Context) -> Routing:
        spec = self.spec
        logits = self.logits(x)  # n e
        probabilities = logits.softmax(-1)
        gates, chosen = probabilities.topk(2)  # n 2
        gates = gates / (gates.sum(-1, keepdim=True) + 1e-9)
        losses = learned_losses(spec, logits, probabilities, chosen[:, :1], spec.group)
        used = self._second(gates.detach()[:, 1], context)
        if used is not None:
            chosen = torch.stack([chosen[:, 0], torch.where(used, chosen[:, 1], -1)], -1)
        if context.seed is not None:
            factor = spec.capacity * (1 if spec.mesh else 2)
            chosen = balance.within_capacity(chosen, self.experts, factor, spec.group)
        drops = used is not None or context.seed is not None
        metrics = balance.statistics(chosen, spec.active, probabilities, self.experts)
        return Routing(chosen, gates, drops, losses, metrics)

    def _second(self, gate: Tensor, context: Context) -> Tensor | None:
        """[n] whether the second expert is used, by its gate [n]; None: always."""
        if self.spec.second == "none":
            return torch.zeros_like(gate, dtype=torch.bool)
        if self.spec.second == "threshold":
            return gate > self.spec.threshold
        if self.spec.second == "random" and context.seed is not None:
            draw = torch.rand(gate.shape, generator=context.generator("second expert")).to(gate.device)
            return draw < gate / self.spec.threshold
        return None


class ExpertChoice(Router):
    """Experts choose tokens: each takes its capacity x tokens / experts best ones (Zhou et al. 2022, arXiv 2202.09368).

    Perfectly balanced without a loss, but not causal: whether a token is taken depends on the scores of later ones, in
    evaluation as in training, and one token cannot be decoded so. acausal=True accepts that for training; evaluation
    and decoding then let each token take its `capacity` best experts (rounded), which is another function of the
    weights. group: tokens that compete, None for all of a call.
    """

    capacity: float = 2.0
    group: int | None = None
    acausal: bool = False

    def validate(self) -> None:
        self.require(self.capacity > 0, f"capacity must be positive, got {self.capacity}")
        self.require(
            self.acausal,
            "experts that choose tokens look at later ones, so a language model sees its targets; acausal=True accepts "
            "that in training, and evaluation then lets tokens choose",
        )

    @property
    def active(self) -> int:
        return max(1, round(self.capacity))

    def build(self, width: int, experts: int) -> "ExpertChoiceLayer":
        return ExpertChoiceLayer(self, width, experts)


class ExpertChoiceLayer(LinearRouterLayer):
    def __init__(self, spec: ExpertChoice, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.spec = spec

    def forward(self, x: Tensor, context: Context) -> Routing:
        scores = self.logits(x).softmax(-1)  # n e
        training = context.seed is not None
        if training:
            chosen, gates = balance.expert_choice(scores.detach(), self.spec.capacity, self.spec.group), scores
        else:
            gates, chosen = scores.topk(self.spec.active)
        metrics = balance.statistics(chosen, self.spec.active, scores, self.experts)
        return Routing(chosen, gates, training, metrics=metrics)


class Hash(Router):
    """A fixed random choice by the token's id and the layer, with equal gates and nothing to learn (Roller et al. 2021,
    arXiv 2106.04426): the control that tells what learned routing is worth.
    """

    choices: int = 2

    def validate(self) -> None:
        self.require(self.choices > 0, f"choices must be positive, got {self.choices}")

    @property
    def active(self) -> int:
        return self.choices

    def build(self, width: int, experts: int) -> "HashLayer":
        return HashLayer(self, width, experts)


class HashLayer(RouterLayer):
    def __init__(self, spec: Hash, width: int, experts: int) -> None:
        super().__init__(width, experts)
        self.spec = spec

    def forward(self, x: Tensor, context: Context) -> Routing:
        if context.tokens is None:
            raise InputError("Hash: chooses by token ids, and this model gives none")
        expert = torch.arange(self.experts, device=x.device)
        scores = _mixed(context.tokens.reshape(-1, 1) * self.experts + expert + (context.layer << 32))  # n e
        chosen = scores.topk(self.spec.choices).indices
        gates = torch.full_like(chosen, 1 / self.spec.choices, dtype=working_dtype(x))
        return Routing(chosen, gates, metrics=balance.statistics(chosen, self.spec.choices, None, self.experts))

    def costs(self, length: int) -> list[Cost]:
        return []


def _mixed(number: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 [...], whose products wrap around."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        number = (number ^ (number >> shift)) * factor
    return number ^ (number >> 31)
