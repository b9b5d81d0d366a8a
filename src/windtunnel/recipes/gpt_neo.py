"""GPT-Neo (Black et al. 2021), with the options for research of its first code base (mesh-tensorflow)."""

from itertools import cycle, islice

from windtunnel.init import MeshTensorFlow
from windtunnel.mixers import Attention, Nothing
from windtunnel.mlps import Dense
from windtunnel.model import Block, Embedding, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Axial, Learned
from windtunnel.recipes.sizing import Settings, Sizes, Training, grid_for, heads_for, one_of, recipe
from windtunnel.residuals import PreNorm, Unmixed

TRAINING = Training(learning_rate=6e-3)

_COMMON: Settings = {"vocab": 50_257, "context": 2048}
SIZES: Sizes = {
    "125m": {"layers": 12, "width": 768, "heads": 12, **_COMMON},
    "350m": {"layers": 24, "width": 1024, "heads": 16, **_COMMON},
    "1.3b": {"layers": 24, "width": 2048, "heads": 16, **_COMMON},
    "2.7b": {"layers": 32, "width": 2560, "heads": 20, **_COMMON},
}
KINDS = ("global", "local", "none")


@recipe(SIZES)
def gpt_neo(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    attention: str = "global,local",
    window: int = 256,
    axial: bool = False,
    rows: int | None = None,
    doubled: bool = False,
) -> LanguageModel:
    """GPT-2 with global and local attention in turn, scores that are not scaled, and fewer biases.

    Scores are not divided by sqrt(head width); the initial queries are. Biases: both of the MLP, and attention's
    output. window: keys of a local layer, the query's own included.

    Options of the first code base. attention: the layers' kinds, repeated to the top: global, local, none (an MLP
    alone; doubled: with the stream added to itself in attention's place, as that code does). axial: positions on a
    grid of `rows` by context / rows, the mean of a row's and a column's vector; None is the most even grid.
    """
    norm = LayerNorm()
    kinds = [kind.strip() for kind in attention.split(",")]
    for kind in kinds:
        one_of("attention", kind, KINDS)

    def block(kind: str) -> Block:
        mlp = Dense(hidden=hidden or 4 * width)
        if kind == "none":
            return Block(residual=Unmixed(norm=norm, doubled=doubled), mixer=Nothing(), mlp=mlp)
        band = window if kind == "local" else None
        mixer = Attention(heads=heads or heads_for(width), scale=1.0, window=band, output_bias=True)
        return Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=mlp)

    table = Learned(length=context, deviation=0.01)
    grid = Axial(length=context, shape=grid_for(context, rows), combine="average")
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        embedding=Embedding(positions=grid if axial else table),
        blocks=tuple(block(kind) for kind in islice(cycle(kinds), layers)),
        norm=norm,
        head=Head(tied=True),
        initial=MeshTensorFlow(),
    )
