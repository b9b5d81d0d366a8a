"""H3 and its hybrid with attention (Fu et al. 2022, arXiv 2212.14052)."""

from windtunnel.init import Normal
from windtunnel.mixers import H3, Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.recipes.sizing import Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=6e-3)

_COMMON: Settings = {"vocab": 50_264, "context": 2048}  # GPT-2's vocabulary of 50,257, padded to a multiple of 8
# The released hybrids.
SIZES: Sizes = {
    "125m": {"layers": 12, "width": 768, "attention": 1, "attention_heads": 12, **_COMMON},
    "355m": {"layers": 24, "width": 1024, "attention": 2, "attention_heads": 16, **_COMMON},
    "1.3b": {"layers": 24, "width": 2048, "attention": 2, "attention_heads": 16, **_COMMON},
    "2.7b": {"layers": 32, "width": 2560, "attention": 3, "attention_heads": 20, **_COMMON},
}


@recipe(SIZES)
def h3(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    state: int = 64,
    attention: int = 0,
    attention_heads: int | None = None,
) -> LanguageModel:
    """A shift and a diagonal state-space model with products between them, GELU, biases, tied embeddings, no positions.

    heads: None is as many as the width. state: numbers a channel, and taps of the shift. attention: how many layers
    attend instead, at layers i n / (attention + 1), rounded down, which is where the released models have them.
    """
    norm = LayerNorm()
    attending = {index * layers // (attention + 1) for index in range(1, attention + 1)}

    def block(index: int) -> Block:
        attends = index in attending
        mixer = (
            Attention(heads=attention_heads or heads_for(width), bias=True)
            if attends
            else H3(heads=heads or width, state=state)
        )
        return Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=Dense(hidden=hidden or 4 * width))

    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=tuple(block(index) for index in range(layers)),
        norm=norm,
        head=Head(tied=True),
        initial=Normal(std=0.02, scale_writes=True),
    )
