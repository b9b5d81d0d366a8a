"""Differential Transformer (Ye et al. 2024, arXiv 2410.05258)."""

from windtunnel.errors import InputError
from windtunnel.init import FanIn
from windtunnel.mixers import DiffAttention
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Paper, Settings, Sizes, Training, gated_hidden, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=1.2e-2)
PAPER = Paper(
    {"warmup": 0.004, "cooldown": 0.99, "floor": 0.04},
    why="the 3B model: a linear fall from 3.2e-4 to 1.28e-5 after 1000 of 250 000 steps",
)

_COMMON: Settings = {"vocab": 100_288, "context": 2048, "tied": True}
# Table 8; its sizes count one embedding table. Heads are differential heads.
SIZES: Sizes = {
    "830m": {"layers": 24, "width": 1536, "heads": 8, "hidden": 4096, **_COMMON},
    "1.4b": {"layers": 24, "width": 2048, "heads": 8, "hidden": 5461, **_COMMON},
    "2.8b": {"layers": 32, "width": 2560, "heads": 10, "hidden": 6827, **_COMMON},
    "3b": {"layers": 28, "width": 3072, "heads": 12, "hidden": 8192, **_COMMON, "context": 4096},
    "6.8b": {"layers": 32, "width": 4096, "heads": 16, "hidden": 10_923, **_COMMON},
    "13.1b": {"layers": 40, "width": 5120, "heads": 20, "hidden": 13_653, **_COMMON},
    # The variant in transformers (`DiffLlamaConfig`): no gain in the head norm, one eps for all norms.
    "diffllama": {
        "layers": 16,
        "width": 2048,
        "heads": 16,
        "hidden": 8192,
        "vocab": 32_000,
        "context": 2048,
        "gain": False,
        "eps": 1e-5,
    },
}


@recipe(SIZES)
def diff_transformer(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    kv_heads: int | None = None,
    hidden: int | None = None,
    tied: bool = False,
    gain: bool = True,
    eps: float = 1e-6,
    theta: float = 10_000.0,
    lambda_init: float | None = None,
) -> LanguageModel:
    """The baseline with differential attention: half as many heads, queries and keys as wide as before, values twice.

    heads: differential heads. gain: the head norm's learned gain, which the authors' current code has. eps: of the
    block norms; the head norm's is 1e-5. lambda_init: one constant for all depths instead of the formula.
    theta: the authors raise it to 640 000 for 64k tokens. Rotated pairs are (i, i + k/2), as in transformers' variant,
    where the authors rotate (2i, 2i + 1): the same function up to a permutation of rows.
    """
    if heads is None and heads_for(width) % 2:
        raise InputError(f"width: {width} does not give an even number of heads to pair; give heads")
    norm = RMSNorm(eps=eps)

    def block(depth: int) -> Block:
        mixer = DiffAttention(
            heads=heads or heads_for(width) // 2,
            kv_heads=kv_heads,
            depth=depth,
            rope=Rope(theta=theta),
            gain=gain,
            constant=lambda_init,
        )
        return Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=Gated(hidden=hidden or gated_hidden(width)))

    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=tuple(block(depth) for depth in range(layers)),
        norm=norm,
        head=Head(tied=tied),
        initial=FanIn(embedding=1.0, scale_writes=True),
    )
