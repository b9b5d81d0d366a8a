"""GPT-J (Wang and Komatsuzaki 2021, the first version of the layers of mesh-transformer-jax)."""

from windtunnel.init import MeshTransformer
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Paper, Sizes, Training, heads_for, recipe
from windtunnel.residuals import Parallel

TRAINING = Training(learning_rate=1.2e-2)
PAPER = Paper(
    {
        "schedule": "cosine",
        "floor": 0.1,
        "warmup": 3000 / 383_500,
        "flat": 80_500 / 383_500,
        "betas": (0.9, 0.999),
        "z_loss": 1e-4,
    },
    why="its configuration, as shares of 383 500 steps; its z-loss leaves the largest logit out",
)

# The tokenizer has 50,257 tokens; the rest pads the table to 8 shards. The authors' 6,053,381,344 parameters are these
# 6,050,882,784 with what their 8 shards hold in copies.
SIZES: Sizes = {
    "6b": {"layers": 28, "width": 4096, "heads": 16, "rotary_width": 64, "vocab": 50_400, "context": 2048},
}


@recipe(SIZES)
def gpt_j(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    rotary_width: int | None = None,
) -> LanguageModel:
    """x + attention(n) + mlp(n) with n = LayerNorm(x); rotary positions on part of each head, in neighbouring pairs.

    No biases in attention; both in the MLP; an untied head with a bias. rotary_width: numbers of each head that are
    rotated; None is a quarter of it, as published, and at least 2.
    """
    heads = heads or heads_for(width)
    norm = LayerNorm()
    block = Block(
        residual=Parallel(norm=norm),
        mixer=Attention(
            heads=heads,
            rope=Rope(layout="interleaved", width=rotary_width or max(2, width // heads // 8 * 2)),
        ),
        mlp=Dense(hidden=hidden or 4 * width),
    )
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(block,) * layers,
        norm=norm,
        head=Head(bias=True),
        initial=MeshTransformer(),
    )
