"""nGPT: the normalised transformer on the hypersphere (Loshchilov et al. 2024, arXiv 2410.01131)."""

from typing import NamedTuple

from windtunnel.errors import InputError
from windtunnel.init import FanIn
from windtunnel.mixers import Attention, NormalizedAttention
from windtunnel.mlps import Gated, NormalizedGated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm, Scale
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Paper, Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import Normalized, Plain, PreNorm

TRAINING = Training(
    learning_rate=2e-2,
    weight_decay=0.0,
    warmup=0.0,
    why="section 2.6: weights stay on the sphere by projection, so there is nothing to decay and no warm-up",
)
PAPER = Paper(
    {"optimiser": "adam", "schedule": "cosine", "weight_decay": 0.0, "warmup": 0.0},
    why="Adam without decay or warm-up; the rate is the one thing that the paper tunes",
)

_COMMON: Settings = {"vocab": 32_000, "context": 4096}
SIZES: Sizes = {
    "0.5b": {"layers": 24, "width": 1024, "heads": 16, **_COMMON},
    "1b": {"layers": 36, "width": 1280, "heads": 20, **_COMMON},
}
# Section 2.6, which turns a GPT into nGPT. The last one changes no spec, only how it is trained.
STEPS = (
    "remove all norms, the last one too",
    "project the matrices and both tables on the unit sphere after every step",
    "update the hidden state on the sphere, with eigen learning rates",
    "normalise and scale queries and keys, and multiply their products by sqrt(head width)",
    "scale both branches of the MLP",
    "scale the logits of each token",
    "no weight decay, no warm-up",
)


@recipe(SIZES)
def ngpt(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    rate: float | None = None,
    steps: int = len(STEPS),
) -> LanguageModel:
    """Unit-norm embeddings, hidden states, queries, keys and matrices; no norm layers; logits scaled for each token.

    rate: where the eigen learning rates start. The paper uses 0.05 at 24 and 36 layers, "of order 1/layers"; the
    default is max(0.05, 1/layers), which is the same there and moves shallow models at all. steps: how many of the
    conversion's `STEPS` are taken, in their order; none is the baseline with an MLP of 4 x width.
    """
    if not 0 <= steps <= len(STEPS):
        raise InputError(f"steps: {steps}; the conversion has 0 to {len(STEPS)}")
    heads, hidden = heads or heads_for(width), hidden or 4 * width
    moved = Normalized(rate=Scale(initial=rate if rate is not None else max(0.05, 1 / layers)))
    added = PreNorm(norm=RMSNorm()) if steps < 1 else Plain()
    block = Block(
        residual=moved if steps >= 3 else added,
        mixer=(NormalizedAttention if steps >= 4 else Attention)(heads=heads, rope=Rope()),
        mlp=(NormalizedGated if steps >= 5 else Gated)(hidden=hidden),
    )
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(block,) * layers,
        norm=RMSNorm() if steps < 1 else None,
        head=Head(token_scale=Scale() if steps >= 6 else None),
        projected=True if steps == 2 else None,  # from the third step on it follows from the residual
        initial=FanIn(embedding=1.0, scale_writes=steps < 2),
    )


class Stage(NamedTuple):
    """A model on the way from a GPT to nGPT: the last change, the spec with all so far, and how it is trained."""

    change: str
    spec: LanguageModel
    training: Training


def conversion(**settings: object) -> tuple[Stage, ...]:
    """The baseline and each step of the conversion, in order; settings are those of `ngpt` but for `steps`."""
    stages = []
    for steps, change in enumerate(("the baseline", *STEPS)):
        spec = ngpt(**settings, steps=steps)
        assert isinstance(spec, LanguageModel)
        stages.append(Stage(change, spec, TRAINING if steps == len(STEPS) else Training(learning_rate=1.2e-2)))
    return tuple(stages)
