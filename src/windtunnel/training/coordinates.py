"""The coordinate check: do activations, and their changes in training, keep their size as the width grows?

Models of several widths are trained for a few steps at one learning rate. At each site x (the embedding, every mixer
and MLP, the stream after every block, scores, logits) the RMS of x and of its change since the first step are fitted as
width^slope (Yang et al. 2022, arXiv 2203.03466, figure 5). Under muP changes have the slope 0 and sizes at most that.
Scores and logits are sums of what is learned, which keeps its size, and of random products, which fall with
1/sqrt(width): at small widths their slopes lie anywhere from -1/2 to 0.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel import recipes
from windtunnel.embedding import EmbeddingLayer
from windtunnel.errors import InputError
from windtunnel.layer import Context, MixerLayer, MLPLayer
from windtunnel.mixers.base import AttendingLayer
from windtunnel.model import BlockLayer
from windtunnel.root import Model, ModelLayer
from windtunnel.statistics import Floats, mean_interval
from windtunnel.training.optimisers import build_optimisers
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.transfer import at_width, under_mup

Parametrisation = Literal["mup", "standard"]
TOLERANCE = 0.3  # of a slope; a factor of sqrt(width) that is missing somewhere would give 0.5
_RANDOM = -0.5  # the slope of a product of independent vectors
_VOCAB, _CONTEXT, _BATCH = 256, 32, 8
_TINY = 1e-30


@dataclass(frozen=True)
class Plan:
    """What is trained. The first width is the base, where muP and the standard parametrisation are one."""

    recipe: str
    widths: tuple[int, ...] = (64, 128, 256, 512)
    steps: int = 4
    seeds: int = 3
    learning_rate: float | None = None
    settings: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Refuse what gives no slope."""
        if len(self.widths) < 3 or list(self.widths) != sorted(set(self.widths)):
            raise InputError(f"widths: {list(self.widths)} given; at least three, rising")
        for name in ("steps", "seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} given; at least 1")

    @property
    def rate(self) -> float:
        """The learning rate of every width: that of the recipe at the first."""
        return self.learning_rate or recipes.training(self.recipe).learning_rate_at(self.widths[0])

    def spec(self, width: int, parametrisation: Parametrisation) -> Model:
        """The model of one width."""
        base = {"vocab": _VOCAB, "context": _CONTEXT, "layers": 2, **(self.settings or {}), "width": self.widths[0]}
        wide = at_width(self.recipe, base, width)
        if parametrisation == "standard":
            return recipes.build(self.recipe, **wide)
        return under_mup(self.recipe, wide, self.widths[0])


@dataclass(frozen=True)
class Site:
    """One place in the model: RMS of the activation and of its change after the last step, [seeds, widths] each."""

    name: str
    sizes: Floats
    changes: Floats

    @property
    def lowest(self) -> float:
        """The slope that its change has at least under muP."""
        return _RANDOM - TOLERANCE if self.name.endswith(("scores", "logits")) else -TOLERANCE


@dataclass(frozen=True)
class Slope:
    """The exponent of the width, with its 95 % interval over seeds (infinite for one seed)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """Every site under one parametrisation."""

    plan: Plan
    parametrisation: Parametrisation
    sites: tuple[Site, ...]

    def slope(self, site: Site, of: Literal["sizes", "changes"]) -> Slope:
        """The exponent with which a site's size or change grows: the mean over seeds of least squares in logarithms."""
        logs = np.log(np.maximum(getattr(site, of), _TINY))
        slopes = np.polyfit(np.log(self.plan.widths), logs.T, 1)[0]
        interval = mean_interval(slopes)
        return Slope(float(interval.value), *interval.ends)

    @property
    def faults(self) -> list[str]:
        """What fails the check, in words; empty where all sites pass."""
        found = []
        for site in self.sites:
            change, size = self.slope(site, "changes").value, self.slope(site, "sizes").value
            if not site.lowest <= change <= TOLERANCE:
                found.append(f"the change of {site.name} goes with width^{change:.2f}")
            if not size <= TOLERANCE:
                found.append(f"{site.name} grows with width^{size:.2f}")
        return found

    @property
    def passed(self) -> bool:
        """Whether every site keeps its size."""
        return not self.faults


def check(plan: Plan, parametrisation: Parametrisation = "mup", say: Callable[[str], None] | None = None) -> Result:
    """Train every width and seed for a few steps, on one batch that is read again and again.

    Raises `InputError` where the recipe cannot be brought to these widths, or not under muP.
    """
    plan.check()
    specs = {width: plan.spec(width, parametrisation) for width in plan.widths}
    found: list[list[dict[str, tuple[float, float]]]] = []
    for seed in range(plan.seeds):
        row = []
        for width, spec in specs.items():
            if say is not None:
                say(f"{parametrisation}: seed {seed + 1} of {plan.seeds}, width {width}")
            row.append(_measured(plan, spec, seed))
        found.append(row)
    names = [name for name in found[0][0] if all(name in each for row in found for each in row)]
    values = np.array([[[each[name] for each in row] for row in found] for name in names])  # site seed width 2
    sites = (Site(name, value[..., 0], value[..., 1]) for name, value in zip(names, values, strict=True))
    return Result(plan, parametrisation, tuple(sites))


def _measured(plan: Plan, spec: Model, seed: int) -> dict[str, tuple[float, float]]:
    """RMS of each site after the last step, and of its change since before the first."""
    model = spec.build().initialize(seed)
    probe = _texts(seed)[:, :-1]
    before = activations(model, probe)
    _train(plan, model, seed)
    after = activations(model, probe)
    return {name: (_rms(value), _rms(value - before[name])) for name, value in after.items()}


def _train(plan: Plan, model: ModelLayer, seed: int) -> None:
    """A few steps at a constant rate; no clipping, which Adam would not notice."""
    settings = TrainingSettings(
        tokens=plan.steps * _BATCH * _CONTEXT, context=_CONTEXT, batch_size=_BATCH, learning_rate=plan.rate
    )
    optimisers = build_optimisers(model, settings)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * group.get("factor", 1.0)
    texts = _texts(seed)
    for _ in range(plan.steps):
        loss = model.loss(texts[:, :-1], texts[:, 1:], seed=seed).total
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        model.project_()


@torch.no_grad()
def activations(model: ModelLayer, texts: Tensor) -> dict[str, Tensor]:
    """What every site holds when the model reads texts [b t]."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, EmbeddingLayer | MixerLayer | MLPLayer | BlockLayer):
            handles.append(module.register_forward_hook(functools.partial(_note, found, name)))
        if isinstance(module, AttendingLayer) and type(module).attention_scores is not AttendingLayer.attention_scores:
            handles.append(module.register_forward_hook(functools.partial(_note_scores, found, f"{name} scores")))
    try:
        found["logits"] = model(texts).logits
    finally:
        for handle in handles:
            handle.remove()
    return found


def _note(found: dict[str, Tensor], name: str, module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
    found[name] = out if isinstance(out, Tensor) else out[0]


def _note_scores(found: dict[str, Tensor], name: str, module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
    assert isinstance(module, AttendingLayer)
    x, context = given[0], given[1]
    assert isinstance(context, Context)
    found[name] = module.attention_scores(x, context)


def _texts(seed: int) -> Tensor:
    """Token ids [b t+1] in which each token says nearly what follows: there is something to learn, and noise."""
    draw = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(_VOCAB, (_BATCH,), generator=draw)]
    for _ in range(_CONTEXT):
        tokens.append((5 * tokens[-1] + 3 + torch.randint(4, (_BATCH,), generator=draw)) % _VOCAB)
    return torch.stack(tokens, 1)


def _rms(value: Tensor) -> float:
    return math.sqrt(float(value.double().square().mean()))
