"""Linear maps, the roles of a model's parameters, and initialisation as a table over roles."""

import hashlib
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windtunnel.layer import Layer, Role, RoleKind
from windtunnel.spec import Spec


class Linear(Layer):
    """y = x Wᵀ + b with W [outputs, inputs]. fan_in: of the initial values, where it is not `inputs`."""

    def __init__(
        self, inputs: int, outputs: int, kind: RoleKind, bias: bool = False, fan_in: int | None = None
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = self.declare("weight", (outputs, inputs), Role(kind, fan_in or inputs, fan_out=outputs))
        self.bias = self.declare("bias", (outputs,), Role("bias", constant=0.0)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    @property
    def operations(self) -> float:
        """Floating-point operations per token."""
        return 2.0 * self.inputs * self.outputs


class Initial(Spec):
    """How parameters start. Part of a recipe and of a run's identity, not of the function that a spec computes."""

    def deviation(self, role: Role, layers: int) -> float:
        """Standard deviation of a parameter's initial values."""
        raise NotImplementedError

    def draw(self, shape: torch.Size, role: Role, deviation: float, generator: torch.Generator) -> Tensor:
        """Values of that standard deviation, normal unless a kind of initialisation says otherwise."""
        return torch.empty(shape, dtype=torch.float32).normal_(0.0, deviation, generator=generator)


class Normal(Initial):
    """N(0, std); matrices that write to the residual stream are divided by sqrt(2 layers) (GPT-2)."""

    std: float = 0.02
    scale_writes: bool = True

    def deviation(self, role: Role, layers: int) -> float:
        return self.std / math.sqrt(2 * layers) if role.kind == "writes" and self.scale_writes else self.std


class FanIn(Initial):
    """N(0, 1/sqrt(fan-in)) for matrices and the unembedding (PaLM section 5), N(0, embedding) for the embedding.

    `scale_writes` divides matrices that write to the residual stream by sqrt(2 layers).
    """

    embedding: float = 1.0
    scale_writes: bool = False

    def deviation(self, role: Role, layers: int) -> float:
        if role.kind == "embedding":
            return self.embedding
        depth = math.sqrt(2 * layers) if role.kind == "writes" and self.scale_writes else 1.0
        return 1 / (math.sqrt(role.fan_in) * depth)


class NearlyNothing(Initial):
    """N(0, 1/fan-in), but variances of `share`/fan-in for matrices that write to the stream and for the unembedding.

    Blocks begin as the identity and the logits as zeros (Ho et al. 2019, the authors' code). Tables of tokens are
    N(0, (embedding)²/width).
    """

    embedding: float = 5.0
    share: float = 1e-10

    def deviation(self, role: Role, layers: int) -> float:
        if role.kind == "embedding":
            return self.embedding / math.sqrt(role.fan_in)
        share = self.share if role.kind in ("writes", "unembedding") else 1.0
        return math.sqrt(share / role.fan_in)


class FanInUniform(Initial):
    """U(±1/sqrt(fan-in)) for matrices, which is `torch.nn.Linear`'s own, and N(0, embedding) for tables.

    Matrices that write to the residual stream are divided by sqrt(layers) (Mamba's code: one branch a layer).
    """

    embedding: float = 0.02

    def deviation(self, role: Role, layers: int) -> float:
        if role.kind in ("embedding", "unembedding"):
            return self.embedding
        return 1 / math.sqrt(3 * role.fan_in * (layers if role.kind == "writes" else 1))

    def draw(self, shape: torch.Size, role: Role, deviation: float, generator: torch.Generator) -> Tensor:
        if role.kind in ("embedding", "unembedding") or role.deviation is not None:
            return super().draw(shape, role, deviation, generator)
        bound = math.sqrt(3) * deviation
        return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


def uniform(low: float, high: float) -> Callable[[torch.Size, torch.Generator], Tensor]:
    """The `draw` of a role whose initial values are uniform in [low, high)."""

    def draw(shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.empty(shape, dtype=torch.float32).uniform_(low, high, generator=generator)

    return draw


class Kaiming(Initial):
    """N(0, sqrt(2/fan-in)) for matrices and both tables, divided by sqrt(2 layers) where they write to the residual
    stream (He et al. 2015, eq. 10; MPT's settings).
    """

    def deviation(self, role: Role, layers: int) -> float:
        return math.sqrt((1 / layers if role.kind == "writes" else 2) / role.fan_in)


class MeshTensorFlow(Initial):
    """The first GPT-Neo code base: N(0, 1/sqrt(fan-in)) for attention; 0.02 elsewhere, / sqrt(layers) for MLP outputs.

    Its scores are not divided by sqrt(head width), which is part of the queries' fan-in instead (`Attention.scale`).
    """

    def deviation(self, role: Role, layers: int) -> float:
        if role.mechanism == "attention projections":
            return 1 / math.sqrt(role.fan_in)
        return 0.02 / math.sqrt(layers) if role.kind == "writes" else 0.02


class MeshTransformer(Initial):
    """GPT-J's code base: normals of 1/sqrt(fan-in), or 2/layers/sqrt(width) where they write to the residual stream,
    cut at two deviations and not rescaled. The input table is a matrix over one-hot vectors: 1/sqrt(vocabulary).
    """

    def deviation(self, role: Role, layers: int) -> float:
        if role.kind == "writes":
            return _CUT * 2 / layers / math.sqrt(role.fan_out)
        return _CUT / math.sqrt(role.fan_out if role.kind == "embedding" else role.fan_in)

    def draw(self, shape: torch.Size, role: Role, deviation: float, generator: torch.Generator) -> Tensor:
        if role.deviation is not None:
            return super().draw(shape, role, deviation, generator)
        uncut = deviation / _CUT
        return nn.init.trunc_normal_(torch.empty(shape), 0.0, uncut, -2 * uncut, 2 * uncut, generator=generator)


_CUT = 0.8796256610342398  # standard deviation of a standard normal cut at two


class ReducedFanIn(FanIn):
    """`FanIn` with the variance of every matrix multiplied by `scale` (Switch Transformer, section 2.4: 0.1)."""

    scale: float = 0.1

    def validate(self) -> None:
        self.require(self.scale > 0, f"scale must be positive, got {self.scale}")

    def deviation(self, role: Role, layers: int) -> float:
        found = super().deviation(role, layers)
        return found if role.kind == "embedding" else found * math.sqrt(self.scale)


class DepthFanIn(Initial):
    """N(0, 1/sqrt(fan-in)) for every table and matrix; sqrt(2 / layers) of that for those that write to the residual
    stream (the authors' code of Griffin, arXiv 2402.19427).
    """

    def deviation(self, role: Role, layers: int) -> float:
        depth = 2 / layers if role.kind == "writes" else 1.0
        return math.sqrt(depth / role.fan_in)


def roles(model: nn.Module) -> dict[str, Role]:
    """The role of every parameter of a model, by name; a tied table appears once.

    A parameter belongs to the mechanism of the nearest layer around it that names one.
    """
    found: dict[str, Role] = {}
    mechanisms: dict[str, str | None] = {}
    for path, module in model.named_modules():
        own = module.mechanism if isinstance(module, Layer) else None
        mechanisms[path] = own or mechanisms.get(path.rpartition(".")[0])
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}".lstrip(".")
            assert isinstance(module, Layer), f"{full}: parameters belong to a Layer that declares their roles"
            assert parameter is not None
            found[full] = module.roles[name]._replace(mechanism=mechanisms[path])
    return found


@torch.no_grad()
def initialize(model: nn.Module, initial: Initial, seed: int, layers: int) -> None:
    """Fill every parameter in place. Values depend only on (seed, parameter name, role, shape)."""
    table = roles(model)
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_values(name, parameter.shape, table[name], initial, seed, layers))


def initial_values(name: str, shape: torch.Size, role: Role, initial: Initial, seed: int, layers: int) -> Tensor:
    """The values that a parameter starts with."""
    if role.constant is not None:
        return torch.tensor(role.constant, dtype=torch.float64).expand(shape)
    if role.draw is not None:
        return role.draw(shape, generator(seed, name))
    deviation = role.deviation if role.deviation is not None else initial.deviation(role, layers)
    return initial.draw(shape, role, deviation, generator(seed, name))


def generator(seed: int, name: str) -> torch.Generator:
    """A random stream of its own for each (seed, name)."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
