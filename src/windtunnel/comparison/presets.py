"""Presets: how large a study is and how far it may go in its claims. A GPU gets larger models and budgets."""

from dataclasses import dataclass, replace

from windtunnel.errors import InputError
from windtunnel.spec import nearest


@dataclass(frozen=True)
class Preset:
    """The design of a study (protocol: tuning, horizons, seeds).

    tokens: D, the reference budget. horizons: fractions of D that every reported run also ends at, fully decayed.
    tuning_fraction: length of a learning-rate trial as a fraction of D. edge_cap: trials beyond the grid's edge.
    refine: half steps and a parabola around the best. bracket: check the chosen rate at D where trials are shorter.
    sigma, slope: s.d. of a paired loss difference and -dL/dlnD measured at this size on the default corpus; they are
    the prior for "what can this study see".
    """

    name: str
    layers: int
    width: int
    context: int
    batch_size: int
    tokens: int
    seeds: int
    horizons: tuple[float, ...]
    evaluation_tokens: int
    vocab: int | None = None
    trials: int = 5
    edge_cap: int = 4
    refine: bool = True
    bracket: bool = True
    tuning_fraction: float = 0.5
    warmup: float = 0.03
    cooldown: float = 0.2
    blocks: int = 8
    second_knob: bool = False
    sigma: float = 0.02
    slope: float = 0.38

    @property
    def longest(self) -> float:
        """The longest horizon as a multiple of D."""
        return max(self.horizons)


_STEP = 16 * 128
_CPU = {
    "smoke": Preset(
        name="smoke",
        layers=2,
        width=32,
        context=64,
        batch_size=8,
        tokens=64 * 8 * 64,
        seeds=1,
        horizons=(0.5, 1.0),
        evaluation_tokens=8_192,
        trials=3,
        edge_cap=0,
        refine=False,
        bracket=False,
        blocks=4,
    ),
    "quick": Preset(
        name="quick",
        layers=3,
        width=64,
        context=128,
        batch_size=16,
        tokens=300 * _STEP,
        seeds=5,
        horizons=(0.25, 0.5, 1.0),
        evaluation_tokens=65_536,
        edge_cap=1,
        refine=False,
        bracket=False,
    ),
    "standard": Preset(
        name="standard",
        layers=3,
        width=64,
        context=128,
        batch_size=16,
        tokens=1500 * _STEP,
        seeds=5,
        horizons=(0.25, 0.5, 1.0, 2.0),
        evaluation_tokens=2**20,
    ),
}
_CPU["strict"] = replace(_CPU["standard"], name="strict", seeds=10, tuning_fraction=1.0, second_knob=True)
_GPU_STEP = 64 * 256
_GPU_SIZES = {"layers": 6, "width": 256, "context": 256, "batch_size": 64}
_GPU = {
    "smoke": _CPU["smoke"],
    "quick": replace(_CPU["quick"], **_GPU_SIZES, tokens=600 * _GPU_STEP),  # type: ignore[arg-type]
    "standard": replace(_CPU["standard"], **_GPU_SIZES, tokens=6_000 * _GPU_STEP),  # type: ignore[arg-type]
    "strict": replace(_CPU["strict"], **_GPU_SIZES, tokens=6_000 * _GPU_STEP),  # type: ignore[arg-type]
}


_TASK_STEPS = {"smoke": 40, "quick": 1000, "standard": 3000, "strict": 3000}
_TASK_SEEDS = {"smoke": 1, "quick": 3, "standard": 5, "strict": 10}
_TASK_BATCH = 64


def for_task(design: Preset, span: int) -> Preset:
    """A preset's design for a synthetic task whose items have `span` tokens.

    Two layers; one horizon, since steps to solve it take the place of shorter ones; trials are as long as runs.
    """
    batch = 8 if design.name == "smoke" else _TASK_BATCH
    return replace(
        design,
        layers=2,
        context=span,
        batch_size=batch,
        tokens=_TASK_STEPS[design.name] * batch * span,
        seeds=_TASK_SEEDS[design.name],
        horizons=(1.0,),
        edge_cap=4 if design.edge_cap else 0,
        tuning_fraction=1.0,
        refine=False,
        bracket=False,
    )


def preset(name: str, device: str) -> Preset:
    """The preset of this name for a device type ("cpu", "cuda", "mps")."""
    table = _CPU if device == "cpu" else _GPU
    if name not in table:
        raise InputError(f"preset: unknown preset {name!r}{nearest(name, table)}")
    return table[name]
