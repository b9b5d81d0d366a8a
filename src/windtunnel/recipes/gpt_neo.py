"""GPT-Neo (Black et al. 2021), with the options for research of its first code base (mesh-tensorflow)."""

from itertools import cycle, islice

from windtunnel.init import MeshTensorFlow
from windtunnel.mixers import Attention, LinearAttention, Mixer, Nothing
from windtunnel.mlps import MLP, Dense, Experts, GShard
from windtunnel.model import Block, Embedding, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Axial, Learned
from windtunnel.recipes.sizing import Paper, Settings, Sizes, Training, grid_for, heads_for, one_of, recipe
from windtunnel.residuals import PreNorm, Unmixed

TRAINING = Training(learning_rate=6e-3)
PAPER = Paper(
    {"schedule": "cosine", "floor": 0.1, "warmup": 3000 / 286_150, "z_loss": 1e-4},
    why="its configurations of the large sizes; its Adam corrects no bias and decays embeddings, unlike here",
)

_COMMON: Settings = {"vocab": 50_257, "context": 2048}
SIZES: Sizes = {
    "125m": {"layers": 12, "width": 768, "heads": 12, **_COMMON},
    "350m": {"layers": 24, "width": 1024, "heads": 16, **_COMMON},
    "1.3b": {"layers": 24, "width": 2048, "heads": 16, **_COMMON},
    "2.7b": {"layers": 32, "width": 2560, "heads": 20, **_COMMON},
}
KINDS = ("global", "local", "linear", "none")


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
    experts: int | None = None,
    expert_hidden: int = 4096,
    every: int = 2,
) -> LanguageModel:
    """GPT-2 with global and local attention in turn, scores that are not scaled, and fewer biases.

    Scores are not divided by sqrt(head width); the initial queries are. Biases: both of the MLP, and attention's
    output. window: keys of a local layer, the query's own included.

    Options of the first code base. attention: the layers' kinds, repeated to the top: global, local, linear (kernel
    attention with exp; stabilised, so that its 1e-6 in the denominator is not needed), none (an MLP alone; doubled:
    with the stream added to itself in attention's place, as that code does). axial: positions on a grid of `rows` by
    context / rows, the mean of a row's and a column's vector; None is the most even grid. experts: how many, 16 there,
    of which a token meets two in the last MLP of each `every`; ReLU, no biases, `expert_hidden` whatever the width.
    """
    norm = LayerNorm()
    kinds = [kind.strip() for kind in attention.split(",")]
    for kind in kinds:
        one_of("attention", kind, KINDS)

    heads = heads or heads_for(width)
    mixers: dict[str, Mixer] = {
        "global": Attention(heads=heads, scale=1.0, output_bias=True),
        "local": Attention(heads=heads, scale=1.0, output_bias=True, window=window),
        "linear": LinearAttention(heads=heads, normalisation="kernel", features="exp", output_bias=True),
        "none": Nothing(),
    }

    def mlp(index: int) -> MLP:
        if experts is None or index % every < every - 1:
            return Dense(hidden=hidden or 4 * width)
        router = GShard(mesh=True)
        return Experts(experts=experts, hidden=expert_hidden, router=router, activation="relu", gated=False)

    def block(index: int, kind: str) -> Block:
        residual = Unmixed(norm=norm, doubled=doubled) if kind == "none" else PreNorm(norm=norm)
        return Block(residual=residual, mixer=mixers[kind], mlp=mlp(index))

    table = Learned(length=context, deviation=0.01)
    grid = Axial(length=context, shape=grid_for(context, rows), combine="average")
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        embedding=Embedding(positions=grid if axial else table),
        blocks=tuple(block(index, kind) for index, kind in enumerate(islice(cycle(kinds), layers))),
        norm=norm,
        head=Head(tied=True),
        initial=MeshTensorFlow(),
    )
