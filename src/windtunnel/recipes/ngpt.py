"""nGPT: the normalised transformer on the hypersphere (Loshchilov et al. 2024, arXiv 2410.01131)."""

from windtunnel.init import FanIn
from windtunnel.mixers import NormalizedAttention
from windtunnel.mlps import NormalizedGated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import Scale
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import Normalized

TRAINING = Training(
    learning_rate=2e-2,
    weight_decay=0.0,
    warmup=0.0,
    why="section 2.6: weights stay on the sphere by projection, so there is nothing to decay and no warm-up",
)

_COMMON: Settings = {"vocab": 32_000, "context": 4096}
SIZES: Sizes = {
    "0.5b": {"layers": 24, "width": 1024, "heads": 16, **_COMMON},
    "1b": {"layers": 36, "width": 1280, "heads": 20, **_COMMON},
}


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
) -> LanguageModel:
    """Unit-norm embeddings, hidden states, queries, keys and matrices; no norm layers; logits scaled for each token.

    rate: where the eigen learning rates start. The paper uses 0.05 at 24 and 36 layers, "of order 1/layers"; the
    default is max(0.05, 1/layers), which is the same there and moves shallow models at all.
    """
    block = Block(
        residual=Normalized(rate=Scale(initial=rate if rate is not None else max(0.05, 1 / layers))),
        mixer=NormalizedAttention(heads=heads or heads_for(width), rope=Rope()),
        mlp=NormalizedGated(hidden=hidden or 4 * width),
    )
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(block,) * layers,
        head=Head(token_scale=Scale()),
        initial=FanIn(embedding=1.0),
    )
