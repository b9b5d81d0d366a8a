"""What a ladder is to be: its budgets, sizes and rules. A GPU gets larger models."""

import math
from dataclasses import dataclass
from itertools import pairwise

from windtunnel.comparison.presets import Preset
from windtunnel.comparison.scaling.runs import FEWEST_BUDGETS, FEWEST_SIZES, SMALLEST_SPAN
from windtunnel.errors import InputError
from windtunnel.spec import nearest

LARGEST_STEP = 2.0  # between neighbouring sizes
FEWEST_STEPS = 100  # of a run: with fewer the warm-up and the cooldown are most of it
_STEP = 16 * 128


@dataclass(frozen=True)
class Design:
    """The design of a ladder (protocol 13.1).

    budgets: training FLOPs, ascending. sizes: of each budget. seeds: reported at the three sizes around each
    minimum; the others have one. tokens_per_parameter: of the size in the middle, the upper one of an even count, N
    counted with the head; the best size is to lie within the budget's sizes. aspect: width over layers of the
    baseline. layers: None lets them follow from the width. trials, edge_cap, refine: of a learning-rate sweep.
    moves: how often the check at the largest budget may move the rate. vocab: None takes bytes.
    """

    name: str
    budgets: tuple[float, ...]
    context: int
    batch_size: int
    evaluation_tokens: int
    sizes: int = FEWEST_SIZES
    seeds: int = 2
    tokens_per_parameter: float = 20.0
    aspect: float = 20.0
    layers: int | None = None
    vocab: int | None = None
    trials: int = 5
    edge_cap: int = 4
    refine: bool = True
    moves: int = 2
    warmup: float = 0.03
    cooldown: float = 0.2

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimiser step."""
        return self.batch_size * self.context

    @property
    def size_step(self) -> float:
        """N of a size over N of the one below: the best N grows with sqrt(C), so sizes repeat from budget to budget."""
        budget_step = (self.budgets[-1] / self.budgets[0]) ** (1 / (len(self.budgets) - 1))
        parts = math.ceil(math.log(budget_step) / (2 * math.log(LARGEST_STEP)) - 1e-9)
        return float(budget_step ** (1 / (2 * parts)))

    @property
    def offsets(self) -> tuple[int, ...]:
        """How many sizes above the smallest budget's each budget begins."""
        step = 2 * math.log(self.size_step)
        return tuple(round(math.log(budget / self.budgets[0]) / step) for budget in self.budgets)

    @property
    def middle(self) -> int:
        """Which of a budget's sizes is the expected best one."""
        return self.sizes // 2

    def preset(self, layers: int, width: int, tokens: int) -> Preset:
        """A study's design for one size and one length."""
        return Preset(
            name=self.name,
            layers=layers,
            width=width,
            context=self.context,
            batch_size=self.batch_size,
            tokens=tokens,
            seeds=self.seeds,
            horizons=(1.0,),
            evaluation_tokens=self.evaluation_tokens,
            trials=self.trials,
            edge_cap=self.edge_cap,
            refine=self.refine,
            bracket=False,
            tuning_fraction=1.0,
            warmup=self.warmup,
            cooldown=self.cooldown,
        )

    def check(self) -> "Design":
        """The design; raises `InputError` where its ladder could carry no fit, with a change that would do."""
        budgets = self.budgets
        if any(not 0 < budget < math.inf for budget in budgets) or any(a >= b for a, b in pairwise(budgets)):
            raise InputError(f"budgets: {_listed(budgets)} given; rising numbers of FLOPs above 0")
        if len(budgets) < FEWEST_BUDGETS:
            raise InputError(
                f"budgets: {len(budgets)} given, at least {FEWEST_BUDGETS} are needed for a fit: add "
                f"{FEWEST_BUDGETS - len(budgets)}"
            )
        if budgets[-1] / budgets[0] < SMALLEST_SPAN * (1 - 1e-9):
            raise InputError(
                f"budgets: {_listed(budgets)} span {budgets[-1] / budgets[0]:.3g}x, at least {SMALLEST_SPAN:g}x is "
                f"needed for a fit: end at {_rounded_up(SMALLEST_SPAN * budgets[0])} or more"
            )
        if len(set(self.offsets)) < len(budgets):
            raise InputError(
                f"budgets: {_listed(budgets)} are spaced too unevenly for sizes that repeat; equal factors would be "
                + _listed(spaced(budgets[0], budgets[-1], len(budgets)))
            )
        if self.sizes < FEWEST_SIZES:
            raise InputError(f"sizes: {self.sizes} for each budget, at least {FEWEST_SIZES} are needed for a fit")
        for name in ("context", "batch_size", "evaluation_tokens", "seeds", "trials"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} given; at least 1")
        if not self.tokens_per_parameter > 0:
            raise InputError(f"tokens_per_parameter: {self.tokens_per_parameter} given; a number above 0, such as 20")
        return self


def spaced(first: float, last: float, count: int) -> tuple[float, ...]:
    """Budgets at equal factors; the ends as given, for a rounded one may leave less than the span that is needed."""
    between = (float(f"{first * (last / first) ** (k / (count - 1)):.3g}") for k in range(1, count - 1))
    return (first, *between, last)


def parse_budgets(text: str) -> tuple[float, ...]:
    """`1e12,2.5e12,6.3e12,1.6e13`, or `1e12:1.6e13` for four at equal factors, `1e12:1.6e13:5` for five."""
    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        first, last, *count = text.split(":")
        number = int(count[0]) if count else FEWEST_BUDGETS
        if len(count) > 1 or number < 2 or not 0 < float(first) < float(last) < math.inf:
            raise ValueError
        return spaced(float(first), float(last), number)
    except ValueError:
        raise InputError(f"budgets: {text!r} given; FLOPs such as 1e12,4e12,1.6e13,6.4e13 or 1e12:1.6e13") from None


def _rounded_up(value: float) -> str:
    """Three digits, not below the value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit - 1e-9) * unit:.3g}"


def _listed(budgets: tuple[float, ...]) -> str:
    return ", ".join(f"{budget:.3g}" for budget in budgets)


DESIGNS = {
    "pilot": Design(
        name="pilot",
        budgets=spaced(1e11, 1.6e12, 4),
        context=128,
        batch_size=16,
        evaluation_tokens=65_536,
        trials=3,
        edge_cap=2,
        refine=False,
    ),
    # For two cores and a night. Bytes ask for about 50 tokens a parameter and for short steps at this scale: at 1e11
    # FLOPs a Llama of 11k, 26k and 66k parameters ended at 1.898, 2.016 and 2.133 nats with 2,048 tokens a step, at
    # 1.894, 1.904 and 2.026 with 512. So six sizes reach from about 110 tokens a parameter down to 1, the best of them
    # inside; fewer tokens for the largest ones are what makes a million parameters affordable. The sweeps' parabola
    # through steps of 2 is precise enough for a rule, without half steps.
    "small": Design(
        name="small",
        budgets=spaced(4.2e11, 6.72e12, 4),
        context=128,
        batch_size=8,
        evaluation_tokens=2**17,
        sizes=6,
        tokens_per_parameter=7.0,
        trials=3,
        refine=False,
        seeds=3,
    ),
    "medium": Design(
        name="medium",
        budgets=spaced(9e15, 1.44e17, 4),
        context=512,
        batch_size=64,
        evaluation_tokens=2**20,
        seeds=3,
        aspect=48.0,
        vocab=4096,
    ),
}


def design(name: str | None, device: str) -> Design:
    """The design of this name; without one that for a device type."""
    chosen = name or ("small" if device == "cpu" else "medium")
    if chosen not in DESIGNS:
        raise InputError(f"preset: unknown preset {chosen!r}{nearest(chosen, DESIGNS)}")
    return DESIGNS[chosen]
