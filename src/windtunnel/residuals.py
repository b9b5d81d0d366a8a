"""How a block is wired: the residual stream, and the norms that belong to the wiring."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from windtunnel.kernels.sphere import sphere_step
from windtunnel.layer import EMPTY, Context, Cost, Layer, MixerLayer, MLPLayer
from windtunnel.norms import Norm, NormLayer, Scale
from windtunnel.spec import Spec


class BlockOutput(NamedTuple):
    """hidden [b t d], the mixer's state, and the MLP's losses and metrics by name."""

    hidden: Tensor
    state: Any
    losses: Mapping[str, Tensor] = EMPTY
    metrics: Mapping[str, Tensor] = EMPTY


class Residual(Spec):
    """The wiring of a block."""

    @property
    def normalized(self) -> bool:
        """Whether the stream lives on the unit sphere (nGPT)."""
        return False

    def build(self, width: int, has_mlp: bool) -> "ResidualLayer":
        """The module for a residual stream of `width` numbers."""
        raise NotImplementedError


class ResidualLayer(Layer):
    """Base of wirings: `forward(x, mixer, mlp, context, state) -> BlockOutput`; mlp None leaves that branch out."""


class PreNorm(Residual):
    """x + mixer(norm(x)), then x + mlp(norm(x)) (Xiong et al. 2020)."""

    norm: Norm

    def build(self, width: int, has_mlp: bool) -> "PreNormLayer":
        return PreNormLayer(self, width, has_mlp)


class PreNormLayer(ResidualLayer):
    def __init__(self, spec: PreNorm, width: int, has_mlp: bool) -> None:
        super().__init__()
        self.mixer_norm = spec.norm.build(width)
        self.mlp_norm: NormLayer | None = spec.norm.build(width) if has_mlp else None

    def forward(
        self, x: Tensor, mixer: MixerLayer, mlp: MLPLayer | None, context: Context, state: Any = None
    ) -> BlockOutput:
        mixed, state = mixer(self.mixer_norm(x), context, state)
        x = x + mixed
        if mlp is None or self.mlp_norm is None:
            return BlockOutput(x, state)
        out = mlp(self.mlp_norm(x), context)
        return BlockOutput(x + out.hidden, state, out.losses, out.metrics)

    def costs(self, length: int) -> list[Cost]:
        second = self.mlp_norm.costs(length) if self.mlp_norm is not None else []
        return self.mixer_norm.costs(length) + second


class RouteFirst(Residual):
    """`PreNorm` whose experts are chosen before attention, from the block's input: r = route(n(x)).

    u = x + mixer(norm(x)), then u + mlp(norm(u), r). own_norm: the router has a norm of its own instead of the mixer's.
    An MLP without experts has nothing to decide, and the block is PreNorm's. Each token's choice reads its own position
    of the stream alone, so the block stays causal.
    """

    norm: Norm
    own_norm: bool = False

    def build(self, width: int, has_mlp: bool) -> "RouteFirstLayer":
        self.require(has_mlp, "a block that routes first needs an mlp")
        return RouteFirstLayer(self, width)


class RouteFirstLayer(ResidualLayer):
    def __init__(self, spec: RouteFirst, width: int) -> None:
        super().__init__()
        self.mixer_norm = spec.norm.build(width)
        self.mlp_norm = spec.norm.build(width)
        self.router_norm = spec.norm.build(width) if spec.own_norm else None

    def forward(
        self, x: Tensor, mixer: MixerLayer, mlp: MLPLayer | None, context: Context, state: Any = None
    ) -> BlockOutput:
        assert mlp is not None
        n = self.mixer_norm(x)
        route = mlp.route(n if self.router_norm is None else self.router_norm(x), context)
        mixed, state = mixer(n, context, state)
        x = x + mixed
        out = mlp(self.mlp_norm(x), context, route)
        return BlockOutput(x + out.hidden, state, out.losses, out.metrics)

    def costs(self, length: int) -> list[Cost]:
        norms = (self.mixer_norm, self.mlp_norm, self.router_norm)
        return [cost for norm in norms if norm is not None for cost in norm.costs(length)]


class Parallel(Residual):
    """x + mixer(n) + mlp(n) with one shared norm n = norm(x) (GPT-J; PaLM section 2).

    own_norm: the MLP reads a norm of its own instead (GPT-NeoX, arXiv 2204.06745, section 2.1).
    """

    norm: Norm
    own_norm: bool = False

    def build(self, width: int, has_mlp: bool) -> "ParallelLayer":
        self.require(has_mlp, "a parallel block needs an mlp")
        return ParallelLayer(self, width)


class ParallelLayer(ResidualLayer):
    def __init__(self, spec: Parallel, width: int) -> None:
        super().__init__()
        self.norm = spec.norm.build(width)
        self.mlp_norm = spec.norm.build(width) if spec.own_norm else None

    def forward(
        self, x: Tensor, mixer: MixerLayer, mlp: MLPLayer | None, context: Context, state: Any = None
    ) -> BlockOutput:
        assert mlp is not None
        n = self.norm(x)
        mixed, state = mixer(n, context, state)
        out = mlp(n if self.mlp_norm is None else self.mlp_norm(x), context)
        return BlockOutput(x + mixed + out.hidden, state, out.losses, out.metrics)

    def costs(self, length: int) -> list[Cost]:
        second = self.mlp_norm.costs(length) if self.mlp_norm is not None else []
        return self.norm.costs(length) + second


class Unmixed(Residual):
    """x + mlp(norm(x)), without a mixer. doubled: x is doubled first, as the first GPT-Neo code base does where its
    attention is "none", adding the stream to itself.
    """

    norm: Norm
    doubled: bool = False

    def build(self, width: int, has_mlp: bool) -> "UnmixedLayer":
        self.require(has_mlp, "a block without a mixer needs an mlp")
        return UnmixedLayer(self, width)


class UnmixedLayer(ResidualLayer):
    def __init__(self, spec: Unmixed, width: int) -> None:
        super().__init__()
        self.norm, self.factor = spec.norm.build(width), 2 if spec.doubled else 1

    def forward(
        self, x: Tensor, mixer: MixerLayer, mlp: MLPLayer | None, context: Context, state: Any = None
    ) -> BlockOutput:
        assert mlp is not None
        x = self.factor * x
        out = mlp(self.norm(x), context)
        return BlockOutput(x + out.hidden, state, out.losses, out.metrics)

    def costs(self, length: int) -> list[Cost]:
        return self.norm.costs(length)


class Plain(Residual):
    """x + mixer(x), then x + mlp(x): no norm anywhere, as in the first steps of the conversion of a GPT into nGPT."""

    def build(self, width: int, has_mlp: bool) -> "PlainLayer":
        return PlainLayer()


class PlainLayer(ResidualLayer):
    def forward(
        self, x: Tensor, mixer: MixerLayer, mlp: MLPLayer | None, context: Context, state: Any = None
    ) -> BlockOutput:
        mixed, state = mixer(x, context, state)
        x = x + mixed
        if mlp is None:
            return BlockOutput(x, state)
        out = mlp(x, context)
        return BlockOutput(x + out.hidden, state, out.losses, out.metrics)


class Normalized(Residual):
    """nGPT's update on the sphere: h ← Norm(h + |α| ⊙ (Norm(branch(h)) - h)) for each branch (eq. 10-11).

    rate: the eigen learning rates α_A and α_M, `width` numbers each. |α| because the sign of the stored number has
    no meaning (the authors' code does the same).
    """

    rate: Scale = Scale(initial=0.05)

    @property
    def normalized(self) -> bool:
        return True

    def build(self, width: int, has_mlp: bool) -> "NormalizedLayer":
        return NormalizedLayer(self, width, has_mlp)


class NormalizedLayer(ResidualLayer):
    def __init__(self, spec: Normalized, width: int, has_mlp: bool) -> None:
        super().__init__()
        self.width = width
        self.mixer_rate = spec.rate.build(width, width)
        self.mlp_rate = spec.rate.build(width, width) if has_mlp else None

    def forward(
        self, x: Tensor, mixer: MixerLayer, mlp: MLPLayer | None, context: Context, state: Any = None
    ) -> BlockOutput:
        mixed, state = mixer(x, context, state)
        x = sphere_step(x, mixed, self.mixer_rate().abs())
        if mlp is None or self.mlp_rate is None:
            return BlockOutput(x, state)
        out = mlp(x, context)
        x = sphere_step(x, out.hidden, self.mlp_rate().abs())
        return BlockOutput(x, state, out.losses, out.metrics)

    def costs(self, length: int) -> list[Cost]:
        branches = 2 if self.mlp_rate is not None else 1
        return [Cost("norms", elementwise=branches * (4.0 + 4.0 + 3.0) * self.width)]
