"""nGPT: the normalised transformer on the hypersphere (Loshchilov et al. 2024, arXiv 2410.01131)."""

from windtunnel.init import FanIn
from windtunnel.mixers import NormalizedAttention
from windtunnel.mlps import NormalizedGated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import Scale
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Settings, Sizes, Training, choose, heads_for
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


def ngpt(
    *,
    size: str | None = None,
    vocab: int | None = None,
    layers: int | None = None,
    width: int | None = None,
    context: int | None = None,
    heads: int | None = None,
    hidden: int | None = None,
    rate: float | None = None,
) -> LanguageModel:
    """Unit-norm embeddings, hidden states, queries, keys and matrices; no norm layers; logits scaled for each token.

    rate: where the eigen learning rates start. The paper uses 0.05 at 24 and 36 layers, "of order 1/layers"; the
    default is max(0.05, 1/layers), which is the same there and moves shallow models at all.
    """
    p = choose(
        SIZES,
        size,
        vocab=vocab,
        layers=layers,
        width=width,
        context=context,
        heads=heads,
        hidden=hidden,
    )
    block = Block(
        residual=Normalized(rate=Scale(initial=rate if rate is not None else max(0.05, 1 / p.layers))),
        mixer=NormalizedAttention(heads=p.heads or heads_for(p.width), rope=Rope()),
        mlp=NormalizedGated(hidden=p.hidden or 4 * p.width),
    )
    return LanguageModel(
        vocab=p.vocab,
        width=p.width,
        context=p.context,
        blocks=(block,) * p.layers,
        head=Head(token_scale=Scale()),
        initial=FanIn(embedding=1.0),
    )
