"""Does the best learning rate stay in place over widths? `llama` under muP and without it, by sweeps on real text.

Every width is trained at the same rates on the same text, fully decayed; the best rate is the vertex of a parabola
through the lowest loss and its neighbours (Yang et al. 2022, arXiv 2203.03466, figure 1).
"""

import math
from typing import Any

import numpy as np

from windtunnel import recipes
from windtunnel.bench.turns import Say
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import default_cache, prepare
from windtunnel.execution import Execution, Resolved
from windtunnel.report.tables import Table
from windtunnel.root import Model
from windtunnel.training.loop import Trainer
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.transfer import under_mup
from windtunnel.training.workload import Text

RECIPE, WIDTHS, STEPS = "llama", (32, 64, 128), 150
RATES = tuple(0.012 * 2.0**k for k in range(-3, 4))
_CONTEXT, _BATCH = 64, 8
_SIZES: dict[str, Any] = {"layers": 2, "vocab": 257, "context": _CONTEXT}


def run(rounds: int, threads: int, say: Say) -> dict[str, Any]:
    """`rounds` seeds; the mean held-out loss at every rate and width, and the best rates."""
    text = Text(prepare(read_corpus(None), "bytes", context=_CONTEXT, heldout_tokens=32_768, cache=default_cache()))
    resolved = Execution(device="cpu", threads=threads).resolve()
    found: dict[str, dict[str, Any]] = {}
    with resolved.applied():
        for kind in ("mup", "standard"):
            found[kind] = {}
            for width in WIDTHS:
                losses = [
                    [_loss(text, _spec(kind, width), rate, seed, resolved) for seed in range(1, rounds + 1)]
                    for rate in RATES
                ]
                means = [float(np.mean(each)) for each in losses]
                found[kind][str(width)] = {"losses": losses, "best": best_rate(means)}
                say(f"{kind}, width {width}: best at {found[kind][str(width)]['best']:.4f}")
    shifts = {
        kind: math.log2(rows[str(WIDTHS[-1])]["best"] / rows[str(WIDTHS[0])]["best"]) for kind, rows in found.items()
    }
    return {"recipe": RECIPE, "steps": STEPS, "rates": RATES, "widths": found, "octaves": shifts, "seeds": rounds}


def table(result: dict[str, Any]) -> Table:
    """Losses by parametrisation, width and rate."""
    rows = []
    for kind, widths in result["widths"].items():
        for width, one in widths.items():
            losses = [f"{np.mean(each):.3f}" for each in one["losses"]]
            rows.append(["muP" if kind == "mup" else "standard", width, *losses, f"{one['best']:.4f}"])
    shifts = {kind: f"{shift:+.1f}" for kind, shift in result["octaves"].items()}
    return Table(
        caption=f"{result['recipe']}: held-out loss by learning rate, {result['steps']} steps, {result['seeds']} seeds",
        columns=("", "width", *(f"{rate:.3g}" for rate in result["rates"]), "best rate"),
        rows=rows,
        numeric=tuple(range(1, 3 + len(result["rates"]))),
        note=f"From the narrowest to the widest the best rate moves by {shifts['mup']} octaves under muP, by "
        f"{shifts['standard']} without it.",
    )


def best_rate(losses: list[float]) -> float:
    """The vertex of the parabola through the lowest loss and its neighbours, in log2; the rate itself at an edge."""
    place = int(np.argmin(losses))
    if place in (0, len(losses) - 1):
        return RATES[place]
    before, here, after = losses[place - 1 : place + 2]
    return float(RATES[place] * 2.0 ** (0.5 * (before - after) / (before - 2 * here + after)))


def _spec(kind: str, width: int) -> Model:
    sizes = {**_SIZES, "width": width}
    return under_mup(RECIPE, sizes, WIDTHS[0]) if kind == "mup" else recipes.build(RECIPE, **sizes)


def _loss(text: Text, spec: Model, rate: float, seed: int, resolved: Resolved) -> float:
    """Held-out nats a token of one run."""
    settings = TrainingSettings(
        tokens=STEPS * _BATCH * _CONTEXT,
        context=_CONTEXT,
        batch_size=_BATCH,
        learning_rate=rate,
        seed=seed,
        data_seed=seed,
        evaluation_tokens=32_768,
    )
    trainer = Trainer(spec.build().initialize(seed), text.order(settings), settings, resolved)
    try:
        for step in range(settings.steps):
            trainer.advance(step, 1.0)
    finally:
        trainer.data.close()
    return text.evaluate(trainer.model.eval(), settings).loss
