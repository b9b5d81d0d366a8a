"""A mixture of experts in the place of an MLP: a router chooses, the chosen experts' results are mixed by its gates."""

from torch import Tensor

from windtunnel.kernels.dispatch import combine, dispatch, gather
from windtunnel.kernels.grouped import grouped_linear
from windtunnel.layer import Context, Cost, MLPLayer, MLPOutput, Role
from windtunnel.mlps.base import MLP
from windtunnel.mlps.dense import Activation, activate
from windtunnel.mlps.routers import Router, Routing


class Experts(MLP):
    """y = Σ_e g_e(x) expert_e(x) over the experts that the router chose for x.

    An expert is W_down (act(W_gate x) ⊙ W_up x), or W_down act(W_up x) where gated is off; no biases. hidden: the
    hidden width of one expert.
    """

    experts: int
    hidden: int
    router: Router
    activation: Activation = "silu"
    gated: bool = True

    def validate(self) -> None:
        self.require(self.hidden > 0, f"hidden must be positive, got {self.hidden}")
        self.require(
            0 < self.router.active <= self.experts,
            f"experts must be at least the {self.router.active} that a token meets, got {self.experts}",
        )

    @property
    def active(self) -> int:
        return self.router.active

    def build(self, width: int) -> "ExpertsLayer":
        return ExpertsLayer(self, width)


class ExpertsLayer(MLPLayer):
    """All experts' matrices are stacked: gate and up [experts, hidden, width], down [experts, width, hidden]."""

    mechanism = "experts"

    def __init__(self, spec: Experts, width: int) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        self.router = spec.router.build(width, spec.experts)
        reads, shape = Role("reads", fan_in=width), (spec.experts, spec.hidden, width)
        self.gate = self.declare("gate", shape, reads) if spec.gated else None
        self.up = self.declare("up", shape, reads)
        self.down = self.declare("down", (spec.experts, width, spec.hidden), Role("writes", fan_in=spec.hidden))

    def route(self, x: Tensor, context: Context) -> Routing:
        """Where each token of x [b t d] goes."""
        routing: Routing = self.router(x.flatten(0, 1), context)
        return routing

    def forward(self, x: Tensor, context: Context, route: Routing | None = None) -> MLPOutput:
        routing = self.route(x, context) if route is None else route
        plan = dispatch(routing.chosen, self.spec.experts, routing.drops)
        results = self.apply_experts(gather(x.flatten(0, 1), plan), plan.ends)
        mixed = combine(results, routing.gates, plan)
        return MLPOutput(mixed.view_as(x), routing.losses, routing.metrics)

    def apply_experts(self, rows: Tensor, ends: Tensor) -> Tensor:
        """What each expert makes of its rows [m d], which lie together: ends [e] int32, where each one's end."""
        up = grouped_linear(rows, self.up, ends)  # m f
        if self.gate is None:
            inner = activate(up, self.spec.activation)
        else:
            inner = activate(grouped_linear(rows, self.gate, ends), self.spec.activation) * up
        return grouped_linear(inner, self.down, ends)

    def idle_parameters(self) -> int:
        return (self.spec.experts - self.spec.active) * self._matrices() * self.width * self.spec.hidden

    def costs(self, length: int) -> list[Cost]:
        """Experts that a token meets in evaluation. Rows are sorted, not padded: capacity can only take work away."""
        spec, active = self.spec, self.spec.active
        operations = 2.0 * active * self._matrices() * self.width * spec.hidden
        elementwise = active * ((2.0 if spec.gated else 1.0) * spec.hidden + 2.0 * self.width)
        return [*self.router.costs(length), Cost.matmul("experts", operations, elementwise)]

    def _matrices(self) -> int:
        return 3 if self.spec.gated else 2
